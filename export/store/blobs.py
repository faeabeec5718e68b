"""Read and write a model store through obstore: a folder, S3, Google Cloud Storage or Azure.

Every call is bounded: obstore repeats what a server refuses for the moment, and gives up after seconds. What fails is
one sentence that names the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from .errors import Interrupted, NotStored, StoreError
from .location import check_location

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CHUNK = 1 << 20
_PART = 8 << 20  # of a multipart upload; S3 allows 10,000 parts: 78 GiB
_CLIENT: ClientConfig = {
    "allow_http": True,  # only an endpoint that the operator names is http
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),  # without a byte
    "timeout": timedelta(hours=2),  # of one request; `pull` has a limit of its own for all of them
}
_RETRIES: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_CREDENTIALS_SERVICE = ("169.254.169.254", "metadata.google.internal")  # asked where no credentials are set


class Blobs:
    """The files of one store, by key. For any thread."""

    def __init__(self, location: str, store: ObjectStore) -> None:
        self.location, self._store = location, store

    @classmethod
    def open(cls, location: str, *, create: bool = False) -> Blobs:
        """Open the store at a location; the standard variables of the cloud give credentials, region and endpoint.

        Args:
            location: a folder or a URL, as `location.check_location` describes it.
            create: whether a folder that does not exist is created.

        Raises:
            StoreError: the location names no store, or its folder does not exist.
        """
        folder = check_location(location)
        if folder is None:
            with _explained(location):
                return cls(location, from_url(location, client_options=_CLIENT, retry_config=_RETRIES))
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            raise StoreError(f"{location}: no such folder")
        with _explained(location):
            return cls(location, LocalStore(folder))

    def read(self, key: str, limit: int) -> bytes:
        """Return a small file. Raises NotStored, or StoreError if it has more than `limit` bytes."""
        content = b""
        for chunk in self.chunks(key):
            content += chunk
            if len(content) > limit:
                raise StoreError(f"{self.location}: {key} is larger than {limit} bytes")
        return content

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Yield the content of a file from a position on."""
        with _explained(self.location, key):
            result = obstore.get(self._store, key, options={"range": {"offset": start}} if start else {})
            for chunk in result.stream(min_chunk_size=_CHUNK):
                yield bytes(chunk)

    def size(self, key: str) -> int | None:
        """Return the size of a file; None if the store has none under this key."""
        try:
            with _explained(self.location, key):
                return obstore.head(self._store, key)["size"]
        except NotStored:
            return None

    def put(self, key: str, content: bytes | Path) -> None:
        """Store a file. A reader sees the old one or the whole new one."""
        with _explained(self.location, key):
            obstore.put(self._store, key, content, chunk_size=_PART)


@contextmanager
def _explained(location: str, key: str = "") -> Iterator[None]:
    """Turn obstore's errors into a sentence each."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise _explain(location, key, error) from error


def _explain(location: str, key: str, error: Exception) -> StoreError:
    text = str(error)
    reason = text.partition("\n")[0]
    if any(words in text for words in _NO_BUCKET):
        return StoreError(f"{location}: the bucket does not exist")
    if isinstance(error, FileNotFoundError):
        return NotStored(f"{location}: the store has no {key or 'such folder'}")
    if any(host in text for host in _CREDENTIALS_SERVICE):
        return StoreError(f"{location}: no credentials are set, and this machine has no identity of its own")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return StoreError(f"{location}: the store refuses access with these credentials")
    if "error sending request" in text or "timed out" in text:
        return Interrupted(f"{location}: the store cannot be reached")
    return Interrupted(f"{location}: the store reports an error: {reason}")
