"""Cursors of lists: opaque to callers, the number of the last row of a page to us."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from avatar.errors import InvalidField

CURSOR = "cursor"
_TEXT = re.compile(rb"before:(\d{1,18})")


def encode(number: int) -> str:
    """Return the cursor of the rows before this one."""
    return urlsafe_b64encode(f"before:{number}".encode()).decode().rstrip("=")


def decode(cursor: str | None) -> int | None:
    """Return the number of a cursor; None without one. Raises InvalidField."""
    if not cursor:
        return None
    try:
        found = _TEXT.fullmatch(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        found = None
    if found is None:
        raise InvalidField(CURSOR, "not a cursor of this service; send the `next` of the page before")
    return int(found[1])
