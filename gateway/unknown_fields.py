"""Fields that a form or a job does not have: ignored, but named in a header and in the log; in strict mode an error."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable
from urllib.parse import quote

from starlette.requests import Request

from avatar.errors import InvalidField

logger = logging.getLogger(__name__)

HEADER = "X-Avatar-Ignored-Fields"
STATE = "ignored_fields"  # key of the request's state, where the middleware finds the value of the header
_MAX_NAMES = 20
_MAX_NAME = 40  # characters
_SIMILAR = 0.75  # least similarity of a name that is suggested


def unknown_field(name: str, known: Collection[str]) -> InvalidField:
    """Return the error of an unknown field, with the known name that it resembles."""
    return InvalidField(ascii(name[:_MAX_NAME]), f"unknown field{_suggestion(name, known)}")


def report_ignored(request: Request, names: Iterable[str], known: Collection[str]) -> None:
    """Name the unknown fields of a request in the header of its response, and in the log."""
    shown = [*names][:_MAX_NAMES]
    if not shown:
        return
    setattr(request.state, STATE, ", ".join(_safe(name) for name in shown))
    logger.info("ignored unknown fields: %s", ", ".join(f"{_safe(name)}{_suggestion(name, known)}" for name in shown))


def _safe(name: str) -> str:
    """Return a name as a header and a log line can hold it: percent-encoded and shortened."""
    return quote(name[:_MAX_NAME])


def _suggestion(name: str, known: Collection[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name[:_MAX_NAME].lower(), by_lower, n=1, cutoff=_SIMILAR)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""
