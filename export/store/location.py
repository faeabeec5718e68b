"""What names a repository in a model store: `s3://bucket/prefix@TAG`, or `…@sha256:HASH` for one manifest alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .errors import StoreError

LATEST = "latest"
SCHEMES = ("s3", "gs", "az")
HASH = re.compile(r"[0-9a-f]{64}")
_PREFIX = "sha256:"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Source:
    """A repository in a store.

    Attributes:
        location: the store, a folder or a URL.
        tag: the name that leads to the manifest; empty if its hash is given.
        digest: the hash of the manifest; empty if the tag decides.
    """

    location: str
    tag: str = LATEST
    digest: str = ""


def parse_source(text: str) -> Source:
    """Read `LOCATION`, `LOCATION@TAG` or `LOCATION@sha256:HASH`. Raises StoreError."""
    location, at, name = text.rpartition("@")
    if not at or "/" in name:
        check_location(text)
        return Source(text)
    check_location(location)
    if not name.startswith(_PREFIX):
        return Source(location, check_tag(name))
    digest = name.removeprefix(_PREFIX)
    if not HASH.fullmatch(digest):
        raise StoreError(f"{text}: after `@sha256:` come the 64 hexadecimal digits that `push` prints")
    return Source(location, "", digest)


def check_tag(tag: str) -> str:
    """Return a tag. Raises StoreError if it is none."""
    if not _TAG.fullmatch(tag):
        raise StoreError(f"{tag!r} is no tag: use up to 128 letters, digits, dots, dashes and underscores")
    return tag


def check_location(location: str) -> Path | None:
    """Return the folder that a location names; None if it is a URL of object storage. Raises StoreError."""
    parts = urlsplit(location)
    if location and not parts.scheme:
        return Path(location).expanduser().absolute()
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return Path(unquote(parts.path))
    if parts.scheme in SCHEMES and parts.netloc:
        return None
    raise StoreError(
        f"{location!r} is no model store: use a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )
