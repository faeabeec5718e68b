"""Which web sites may open a live session from a visitor's browser: browsers do not ask before a WebSocket (CORS)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers


def is_allowed(headers: Headers, allowed: Sequence[str]) -> bool:
    """Return whether a request comes from no web site, from the gateway's own one, or from an allowed one.

    The scheme is not compared: behind a proxy with TLS, the gateway does not know its own.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
