"""Conditional requests and ranges (RFC 9110) for one file with a strong ETag. Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The file has no byte of the range."""


def matches(header: str | None, etag: str) -> bool:
    """Return whether an If-None-Match lists the ETag, or any."""
    if header is None:
        return False
    listed = [each.strip() for each in header.split(",")]
    return "*" in listed or etag in (each.removeprefix("W/") for each in listed)


def parse_range(header: str | None, if_range: str | None, etag: str, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one after the last; None for the whole file.

    A Range that is not understood is ignored, as are several ranges and one whose If-Range is another version.

    Raises:
        Unsatisfiable: the range begins after the end of the file.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:  # the last bytes
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size or start == end:
        raise Unsatisfiable
    return start, end
