"""API keys: a file with their hashes, one JSON object per line, read again whenever it changes.

A key is 256 random bits, so its SHA-256 is enough: a slow hash protects what people choose, because they choose from
few words; of random keys nobody can try a noticeable share, however fast one trial is.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from avatar.settings import MIB

from .records import JobClass
from .settings import ServiceSettings

logger = logging.getLogger(__name__)

PREFIX = "avk_"  # so that a person, and a scanner for secrets, recognizes a key
_KEY_BYTES = 32
_ID_DIGITS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class BadKeys(ValueError):
    """The file of the keys cannot be used; the message is one sentence that names it."""


@dataclass(frozen=True)
class KeyLimits:
    """What the owner of a key may have: queued and running jobs, uploads per minute, bytes in the store."""

    queued: int
    running: int
    uploads_per_minute: int
    stored_bytes: int

    @classmethod
    def of(cls, settings: ServiceSettings) -> KeyLimits:
        """Return the limits of a key whose line in the file has none."""
        return cls(
            settings.key_max_queued,
            settings.key_max_running,
            settings.key_uploads_per_minute,
            settings.key_max_stored_mib * MIB,
        )


def check_name(name: str) -> str:
    """Return the name of a key. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no name of a key; use at most 64 letters, digits, dots, hyphens and underscores"
        )
    return name


class Key(BaseModel):
    """One line of the file.

    Attributes:
        name: of the tenant, which owns the jobs; a tenant may have more than one key while it changes from one to the
            next.
        priorities: those that the key may ask for; all if there is no list.
        queued, running, uploads_per_minute, stored_mib: limits of this key that replace those of the settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(check_name)]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    created: datetime | None = None
    priorities: Annotated[frozenset[JobClass], Field(min_length=1)] | None = None
    queued: Annotated[int, Field(ge=1)] | None = None
    running: Annotated[int, Field(ge=1)] | None = None
    uploads_per_minute: Annotated[int, Field(ge=1)] | None = None
    stored_mib: Annotated[int, Field(ge=1)] | None = None

    @property
    def id(self) -> str:
        """Return what names this key in lists and logs."""
        return self.sha256[:_ID_DIGITS]

    def limits(self, defaults: KeyLimits) -> KeyLimits:
        """Return the limits of the key, from the defaults where its line has none."""
        return KeyLimits(
            self.queued or defaults.queued,
            self.running or defaults.running,
            self.uploads_per_minute or defaults.uploads_per_minute,
            self.stored_mib * MIB if self.stored_mib else defaults.stored_bytes,
        )


def new_key() -> str:
    """Return a new random key."""
    return PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def hash_key(key: str) -> str:
    """Return the hash of a key, in hexadecimal, as the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse(text: str, path: Path) -> tuple[Key, ...]:
    """Return the keys of the file's text; empty lines and lines that start with `#` are comments. Raises BadKeys."""
    found: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = Key.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the line"
            raise BadKeys(f"API keys: line {number} of {path}: {field}: {first['msg']}") from None
        if key.sha256 in found:
            raise BadKeys(f"API keys: line {number} of {path}: this key is in the file twice")
        found[key.sha256] = key
    return tuple(found.values())


class KeyFile:
    """The keys of a file. A change counts from the next request; a file that is broken or gone keeps the last keys.

    Args:
        path: of the file.

    Raises:
        BadKeys: the file cannot be read now.

    Attributes:
        fault: why the file cannot be used at present; None if it can.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, ...] = ()
        self._keys: Mapping[str, Key] = {}
        self.fault: str | None = None
        self._read()

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> Key | None:
        """Return the line of this key, or None if it is not a valid one."""
        self._refresh()
        digest = hash_key(key)
        # The dictionary finds by a part of the hash, of which a caller can learn nothing that leads to a key.
        found = self._keys.get(digest[:_ID_DIGITS])
        return found if found is not None and hmac.compare_digest(found.sha256, digest) else None

    def check(self) -> str | None:
        """Read the file if it has changed, and return `fault`."""
        self._refresh()
        return self.fault

    def _refresh(self) -> None:
        try:
            if _version(self._path.stat()) != self._version:
                self._read()
        except (OSError, BadKeys) as error:
            if isinstance(error, BadKeys):
                fault = str(error)
            else:
                fault = _unreadable(self._path, error)
                self._version = ()  # whatever comes back is read
            if fault != self.fault:
                logger.error("%s; the keys that were read before stay valid", fault)
            self.fault = fault

    def _read(self) -> None:
        try:
            with self._path.open(encoding="utf-8") as file:
                self._version = _version(os.fstat(file.fileno()))
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise BadKeys(_unreadable(self._path, error)) from error
        keys = parse(text, self._path)
        self._keys = _by_id(keys, self._path)
        if self.fault:
            logger.info("API keys: %s can be used again", self._path)
        self.fault = None


def open_keys(settings: ServiceSettings) -> KeyFile | None:
    """Return the keys of the settings; None if no call needs one. Raises BadKeys."""
    return KeyFile(settings.api_keys) if settings.api_keys else None


def _by_id(keys: Iterable[Key], path: Path) -> Mapping[str, Key]:
    found: dict[str, Key] = {}
    for key in keys:
        if key.id in found:  # once in four billion pairs
            raise BadKeys(f"API keys: two keys of {path} have the id {key.id}; revoke one of them and add another")
        found[key.id] = key
    return found


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    reason = (error.strerror or "cannot be read") if isinstance(error, OSError) else "is not UTF-8"
    return f"API keys: {path}: {reason}; make the file with: python -m jobs keys add NAME"
