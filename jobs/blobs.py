"""What a store has: files under keys, and the errors that it answers with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from avatar.errors import StorageFault
from avatar.faults import machine_fault

if TYPE_CHECKING:
    from obstore import ObjectMeta

_KEY = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


class MissingBlob(Exception):
    """The store has no file under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the store has no file {key!r}")
        self.key = key


@dataclass(frozen=True)
class Stored:
    """A file that was written: its size in bytes, its SHA-256 in hexadecimal, and the store's ETag without quotes."""

    size: int
    sha256: str
    etag: str


@dataclass(frozen=True)
class Blob:
    """A file in the store, as the store describes it; the time is UTC."""

    key: str
    size: int
    modified: datetime
    etag: str


@contextmanager
def faults(key: str | None = None) -> Iterator[None]:
    """Turn the errors of the store into StorageFault, and a missing file into MissingBlob where a key is read."""
    try:
        yield
    except TimeoutError as error:
        raise StorageFault("the store does not answer in time") from error
    except FileNotFoundError as error:
        if key is not None:
            raise MissingBlob(key) from error
        raise machine_fault(error) or StorageFault("the store, or a file of the job, does not exist") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StorageFault("the store refuses the credentials of the service") from error
    except (BaseError, OSError) as error:
        raise machine_fault(error) or StorageFault("the store reports an error") from error


def check_key(key: str) -> None:
    """Raise ValueError if a key could leave the store, or is none in one of the clouds."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key of the store")


def as_blob(meta: ObjectMeta) -> Blob:
    """Describe a file from obstore's words for it."""
    return Blob(meta["path"], meta["size"], meta["last_modified"], unquoted(meta["e_tag"]))


def unquoted(etag: str | None) -> str:
    """Return an ETag without its quotes and without the sign of a weak one."""
    return (etag or "").removeprefix("W/").strip('"')
