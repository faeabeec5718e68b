"""The store of the jobs' files: a folder, S3, Google Cloud Storage or Azure, through obstore.

Keys are `inputs/{job_id}/{field}`, `results/{job_id}/{attempt}.mp4` and `avatars/{avatar_id}`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import obstore
from obstore.exceptions import BaseError, NotSupportedError
from obstore.store import LocalStore, from_url

from avatar.errors import MachineFault, StorageFault
from avatar.files import opened

from .blobs import Blob, MissingBlob, Stored, as_blob, check_key, faults, unquoted
from .folder import PARTIAL, create_folder, hash_file, remove_partial, write_atomically
from .locations import folder_of

if TYPE_CHECKING:
    from obstore import Attributes, GetResult
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

Method = Literal["GET", "PUT"]

__all__ = ["Blob", "Method", "MissingBlob", "Store", "Stored"]

MAX_SIGNED_SECONDS = 7 * 24 * 3600  # the limit of S3 and of Google

_CHECKS = "checks/"
_PART = 8 << 20  # of a multipart upload; S3 allows 10,000 parts: 78 GiB
_PARTS_AT_ONCE = 4
_CHUNK = 1 << 20
_CALL_SECONDS = 60.0  # for a call without content, its retries included
_PROBE_SECONDS = 2.0  # health probes give up soon
_PROBE_AGE = 10.0  # seconds for which the result of a check is kept
_CHUNK_SECONDS = 60.0
_MIN_RATE = 256 << 10  # bytes per second; a slower transfer is given up
_CLIENT: ClientConfig = {
    "allow_http": True,  # only an endpoint that the operator names is http
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(hours=2),  # of one request with its content; the deadlines of this module are shorter
}
_RETRIES: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=40),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}


class Store:
    """Files by key. Every method raises StorageFault if the store fails or does not answer in time."""

    def __init__(self, objects: ObjectStore, folder: Path | None = None, signer: ObjectStore | None = None) -> None:
        self._objects = objects
        self._folder = folder
        self._signer = signer or objects
        self._checking = asyncio.Lock()
        self._checked_at: float | None = None
        self._fault: str | None = None

    @classmethod
    def open(cls, url: str, public_endpoint: str | None = None) -> Store:
        """Open the store at a path, `file:///…`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

        The standard environment variables of the cloud give the credentials, the region and the endpoint. A folder is
        created. Nothing else is tried: `check` does that.

        Args:
            public_endpoint: for S3: the endpoint that callers reach, if it is another one than that of this process;
                signed URLs name it.

        Raises:
            ValueError: the URL is none of these.
            StorageFault: the folder cannot be created.
        """
        folder = folder_of(url)
        if folder is not None:
            return cls._open_folder(folder)
        if public_endpoint and not url.startswith("s3://"):
            raise ValueError(f"a public endpoint is for s3://… only, not for {url!r}")
        try:
            objects = from_url(url, client_options=_CLIENT, retry_config=_RETRIES)
            signer = (
                from_url(url, config={"endpoint": public_endpoint}, client_options=_CLIENT) if public_endpoint else None
            )
        except BaseError as error:
            raise ValueError(f"the store {url!r} cannot be used: {_first_line(error)}") from error
        return cls(objects, signer=signer)

    @classmethod
    def _open_folder(cls, folder: Path) -> Store:
        with faults():
            create_folder(folder)
            return cls(LocalStore(folder, automatic_cleanup=True), folder)

    @property
    def folder(self) -> Path | None:
        """Return the folder of the store; None if it is in a cloud."""
        return self._folder

    async def put_file(
        self, key: str, path: Path, content_type: str | None = None, filename: str | None = None
    ) -> Stored:
        """Store a file under a key. A reader sees the old file or the whole new one.

        Args:
            content_type, filename: what a signed URL answers as Content-Type and as the name of the download.
        """
        check_key(key)
        with faults():
            if self._folder is not None:
                size, digest = await asyncio.to_thread(write_atomically, self._folder, key, path)
                return Stored(size, digest, await self._etag(key))
            size, digest = await asyncio.to_thread(hash_file, path)
            async with asyncio.timeout(_CALL_SECONDS + size / _MIN_RATE):
                result = await obstore.put_async(
                    self._objects,
                    key,
                    path,
                    attributes=_attributes(content_type, filename),
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        return Stored(size, digest, unquoted(result["e_tag"]))

    async def fetch_file(self, key: str, path: Path) -> int:
        """Write the file of a key to `path` and return its size. Raises MissingBlob, and creates no file then."""
        result = await self._get(key)
        size = 0
        with faults():
            async with opened(path, "wb") as file, asyncio.timeout(_CALL_SECONDS + result.meta["size"] / _MIN_RATE):
                async for block in result.stream(min_chunk_size=_CHUNK):
                    size += await asyncio.to_thread(file.write, block)
        if size != result.meta["size"]:
            raise StorageFault("the store sent less of a file than it has")
        return size

    async def open_range(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Open the bytes from `start` up to, and without, `end`. Raises MissingBlob before the first byte."""
        if start >= end:
            await self.head(key)
            return _nothing()
        return _chunks(key, await self._get(key, (start, end)))

    async def head(self, key: str) -> Blob | None:
        """Return what the store says about a file; None if there is none."""
        check_key(key)
        try:
            with faults(key):
                async with asyncio.timeout(_CALL_SECONDS):
                    return as_blob(await obstore.head_async(self._objects, key))
        except MissingBlob:
            return None

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove files; those that are missing count as removed."""
        for key in keys:
            check_key(key)
        if not keys:
            return
        with faults():
            async with asyncio.timeout(_CALL_SECONDS + len(keys) / 10):
                try:
                    await obstore.delete_async(self._objects, list(keys))
                except FileNotFoundError:  # some stores stop at a missing file
                    for key in keys:
                        with suppress(FileNotFoundError):
                            await obstore.delete_async(self._objects, key)

    async def list(self, prefix: str = "") -> AsyncIterator[Blob]:
        """Yield every file whose key is below a prefix such as `results/`, in no order."""
        with faults():
            stream = aiter(obstore.list(self._objects, prefix or None))
            while True:
                async with asyncio.timeout(_CALL_SECONDS):
                    try:
                        page = await anext(stream)
                    except StopAsyncIteration:
                        return
                for meta in page:
                    if not meta["path"].startswith(f"{PARTIAL}/"):
                        yield as_blob(meta)

    async def signed_url(self, key: str, seconds: float, method: Method = "GET") -> str | None:
        """Return a URL that everybody may use for `seconds`, at most a week; None if this store has no such URLs."""
        check_key(key)
        if self._folder is not None:
            return None
        valid = timedelta(seconds=min(seconds, MAX_SIGNED_SECONDS))
        with faults():
            async with asyncio.timeout(_CALL_SECONDS):
                try:
                    return await obstore.sign_async(self._signer, method, key, valid)  # type: ignore[arg-type]
                except NotSupportedError:
                    return None

    async def check(self, seconds: float = 10.0) -> None:
        """Write, read and delete a small file. Raises StorageFault, in time, if the store does not work."""
        key = f"{_CHECKS}{secrets.token_hex(8)}"
        content = key.encode()
        with faults():
            async with asyncio.timeout(seconds):
                await obstore.put_async(self._objects, key, content)
                try:
                    result = await obstore.get_async(self._objects, key)
                    same = bytes(await result.bytes_async()) == content
                finally:
                    with suppress(FileNotFoundError):
                        await obstore.delete_async(self._objects, key)
        if not same:
            raise StorageFault("the store returns other data than was written")

    async def fault(self) -> str | None:
        """Return why the store does not work, as a check of the last 10 seconds found it; None if it works."""
        async with self._checking:
            now = time.monotonic()
            if self._checked_at is None or now - self._checked_at > _PROBE_AGE:
                try:
                    await self.check(_PROBE_SECONDS)
                    self._fault = None
                except MachineFault as fault:
                    self._fault = fault.reason
                self._checked_at = now
            return self._fault

    async def remove_partial(self, older_than: float) -> int:
        """Remove what killed writers and checks left `older_than` seconds ago, and return how many files that were.

        The parts of unfinished uploads to a bucket are not listed; a lifecycle rule of the bucket removes them.
        """
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        left = [blob.key async for blob in self.list(_CHECKS) if blob.modified < before]
        await self.delete(left)
        if self._folder is None:
            return len(left)
        return len(left) + await asyncio.to_thread(remove_partial, self._folder, older_than)

    async def _get(self, key: str, span: tuple[int, int] | None = None) -> GetResult:
        check_key(key)
        with faults(key):
            async with asyncio.timeout(_CALL_SECONDS):
                return await obstore.get_async(self._objects, key, options={"range": span} if span else {})

    async def _etag(self, key: str) -> str:
        return unquoted((await obstore.head_async(self._objects, key))["e_tag"])


async def _nothing() -> AsyncIterator[bytes]:
    for block in tuple[bytes, ...]():
        yield block


async def _chunks(key: str, result: GetResult) -> AsyncIterator[bytes]:
    stream = aiter(result.stream(min_chunk_size=_CHUNK))
    while True:
        with faults(key):
            async with asyncio.timeout(_CHUNK_SECONDS):
                try:
                    block = await anext(stream)
                except StopAsyncIteration:
                    return
        yield bytes(block)


def _attributes(content_type: str | None, filename: str | None) -> Attributes:
    attributes: Attributes = {}
    if content_type:
        attributes["Content-Type"] = content_type
    if filename:
        attributes["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
    return attributes


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
