"""What names a store: a folder, or a URL of object storage. It is checked without a library of any cloud."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("s3", "gs", "az")


def folder_of(location: str) -> Path | None:
    """Return the folder that a location names; None if it is a URL of object storage. Raises ValueError."""
    scheme, host = urlsplit(location).scheme, urlsplit(location).netloc
    if not scheme:
        return Path(location).expanduser().absolute()
    if scheme == "file" and not host:
        return Path(unquote(urlsplit(location).path))
    if scheme in SCHEMES and host:
        return None
    raise ValueError("a store is a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix")


def check_location(location: str) -> str:
    """Return a location. Raises ValueError if it names no store."""
    folder_of(location)
    return location
