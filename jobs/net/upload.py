"""Send a result to the URL that a caller gave for it, by PUT."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from avatar.errors import InvalidField
from avatar.faults import storage_fault
from avatar.files import opened_for_work

from .client import UrlClient, check_status
from .errors import RefusedUrl, RequestFailed

REDIRECTS = frozenset({307, 308})  # those that keep the method and the body

_TRIES = 5
_READ = 256 << 10


async def upload(
    client: UrlClient, url: str, path: Path, *, field: str, content_type: str, seconds: float | None = None
) -> None:
    """PUT a file to a URL. It is tried again if the server fails or cannot be reached.

    Args:
        field: name of the form field with the URL, for error messages.
        seconds: time for all of it, retries included; by default that of the client's rules.

    Raises:
        InvalidField: the URL is refused, or its server did not take the file.
        StorageFault: the file cannot be read here.
    """
    limit = client.rules.seconds if seconds is None else seconds
    try:
        async with asyncio.timeout(limit):
            await client.with_retries(lambda: _put(client, url, path, content_type), _TRIES)
    except TimeoutError as error:
        raise InvalidField(field, f"the upload of the result took more than {limit:g} s") from error
    except (RefusedUrl, RequestFailed) as error:
        raise InvalidField(field, str(error)) from error


async def _put(client: UrlClient, url: str, path: Path, content_type: str) -> None:
    async with opened_for_work(path, "rb") as file:
        headers = {"Content-Type": content_type, "Content-Length": str(file.seek(0, os.SEEK_END))}
        async with client.request("PUT", url, headers, lambda: _blocks(file), REDIRECTS) as response:
            check_status(response.status)


async def _blocks(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        file.seek(0)
        while block := await asyncio.to_thread(file.read, _READ):
            yield block
    except OSError as error:
        raise storage_fault(error) from error
