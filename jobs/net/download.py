"""Fetch a file that a caller names by URL: bounded in size, in time and in type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from avatar.errors import InvalidField, StorageFault, TooLarge
from avatar.faults import storage_fault
from avatar.files import opened_for_work

from .client import UrlClient, check_status
from .errors import RefusedUrl, RequestFailed
from .urls import parse_s3

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_TRIES = 3
_WRITE = 1 << 20  # bytes that are collected before a thread writes them
_PAGES = ("text/html", "application/xhtml+xml", "application/json", "application/xml", "text/xml", "multipart/")


@dataclass(frozen=True)
class Downloaded:
    """A file that was fetched: its size in bytes, and the Content-Type that its server named, "" without one."""

    size: int
    content_type: str


async def download(
    client: UrlClient, url: str, path: Path, *, field: str, max_bytes: int, seconds: float | None = None
) -> Downloaded:
    """Write the file of a URL to `path`. A URL that fails leaves no file.

    Args:
        url: `https://…`, or what else the rules of the client allow.
        field: name of the form field with the URL, for error messages.
        max_bytes: the largest size that is accepted.
        seconds: time for all of it, retries included; by default that of the client's rules.

    Raises:
        InvalidField: the URL is refused, its server fails, or what it sends is no media file.
        TooLarge: the file has more than `max_bytes`.
        StorageFault: the file cannot be written here, or the object storage fails.
    """
    limit = client.rules.seconds if seconds is None else seconds
    try:
        async with asyncio.timeout(limit):
            if url.startswith("s3://"):
                return await _fetch_object(client, url, path, field, max_bytes)
            return await client.with_retries(lambda: _fetch(client, url, path, field, max_bytes), _TRIES)
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
        if isinstance(error, TimeoutError):
            raise InvalidField(field, f"the download took more than {limit:g} s") from error
        if isinstance(error, RefusedUrl | RequestFailed):
            raise InvalidField(field, str(error)) from error
        raise


async def _fetch(client: UrlClient, url: str, path: Path, field: str, max_bytes: int) -> Downloaded:
    async with client.request("GET", url, {"Accept": "*/*"}, follow=REDIRECTS) as response:
        check_status(response.status)
        content_type = response.headers.get("content-type", "")
        _check_type(content_type, response.headers.get("content-encoding", ""))
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > max_bytes:
            raise _too_large(field, max_bytes)
        return Downloaded(await _write(response.body, path, field, max_bytes), content_type)


async def _fetch_object(client: UrlClient, url: str, path: Path, field: str, max_bytes: int) -> Downloaded:
    bucket, key = parse_s3(url, client.rules)
    store = S3Store(
        bucket,
        client_options={"allow_http": True, "timeout": timedelta(seconds=client.rules.seconds)},
        retry_config={"max_retries": _TRIES, "retry_timeout": timedelta(seconds=client.rules.seconds)},
    )
    try:
        result = await obstore.get_async(store, key)
        content_type = result.attributes.get("Content-Type", "")
        _check_type(content_type, result.attributes.get("Content-Encoding", ""))
        if result.meta["size"] > max_bytes:
            raise _too_large(field, max_bytes)

        async def blocks() -> AsyncIterator[bytes]:
            async for block in result.stream(min_chunk_size=_WRITE):
                yield bytes(block)

        return Downloaded(await _write(blocks(), path, field, max_bytes), content_type)
    except FileNotFoundError as error:
        raise RequestFailed("the bucket of the URL has no such object") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise RequestFailed("this service may not read the object of the URL") from error
    except (BaseError, ValueError) as error:
        raise StorageFault("the object storage fails, or the key of the URL is invalid") from error


def _check_type(content_type: str, encoding: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(_PAGES):
        raise RequestFailed(f"the server of the URL sent {kind[:40]!a}, not media; give the URL of the file itself")
    if encoding.strip().lower() not in ("", "identity"):
        raise RequestFailed(
            f"the server of the URL sent the file compressed ({encoding[:20]!a}); that is not supported"
        )


async def _write(body: AsyncIterator[bytes], path: Path, field: str, max_bytes: int) -> int:
    size = 0
    pending = bytearray()
    async with opened_for_work(path, "wb") as file:
        async for block in body:
            size += len(block)
            if size > max_bytes:
                raise _too_large(field, max_bytes)
            pending += block
            if len(pending) >= _WRITE:
                await _flush(file, pending)
        await _flush(file, pending)
    return size


async def _flush(file: BinaryIO, pending: bytearray) -> None:
    try:
        await asyncio.to_thread(file.write, bytes(pending))
    except OSError as error:
        raise storage_fault(error) from error
    pending.clear()


def _too_large(field: str, max_bytes: int) -> TooLarge:
    return TooLarge(f"{field}: the file of the URL has more than {max_bytes} bytes, which is the limit")
