"""Who calls: with API keys, every call but `/ping` and health needs one, and belongs to the owner of the key."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from avatar.errors import ClientError
from jobs.keys import KeyFile, KeyLimits
from jobs.quotas import QuotaExceeded, UploadRates
from jobs.records import NO_TENANT, JobClass

from .codes import ErrorCode
from .errors import error_body
from .middleware import ERROR

logger = logging.getLogger(__name__)

KEY_HEADER = "X-Api-Key"
_CALLER = "caller"  # in the state of the request
_UPLOADS = frozenset({"/", "/v1/jobs", "/v1/avatars"})  # a POST to these counts against the limit per minute
CHALLENGE = 'Bearer realm="talking-avatar"'


class Unauthorized(ClientError):
    """The request has no valid API key."""

    status = 401
    code = ErrorCode.UNAUTHORIZED


class ForbiddenPriority(ClientError):
    """The API key may not ask for this priority."""

    status = 403
    code = ErrorCode.FORBIDDEN_PRIORITY


@dataclass(frozen=True)
class Caller:
    """The owner of the request's API key.

    Attributes:
        tenant: owns the jobs; NO_TENANT for a service without keys.
        limits: of the key; None for a service without keys, which has no limits.
        priorities: that it may ask for; None for all.
    """

    tenant: str
    limits: KeyLimits | None = None
    priorities: frozenset[JobClass] | None = None

    def check_priority(self, job_class: JobClass) -> None:
        """Return if the caller may ask for this priority. Raises ForbiddenPriority."""
        if self.priorities is not None and job_class not in self.priorities:
            allowed = " and ".join(sorted(self.priorities))
            raise ForbiddenPriority(f"priority: this API key may not use {job_class}; it may use {allowed}")


ANYBODY = Caller(NO_TENANT)


def caller_of(request: HTTPConnection) -> Caller:
    """Return the caller of a request that `Authentication` has let through."""
    caller: Caller = request.scope["state"][_CALLER]
    return caller


class Authentication:
    """Middleware that answers 401 to a request without a valid key, and 429 to too many uploads of one key.

    It does both before it reads the body.

    Args:
        keys: None if no call needs a key.
        defaults: the limits of a key that has none of its own.
        rates: the uploads of each key; starts of live sessions are among them.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile | None, defaults: KeyLimits, rates: UploadRates) -> None:
        self._app, self._keys, self._defaults, self._rates = app, keys, defaults, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except (Unauthorized, QuotaExceeded) as error:
            scope["state"][ERROR] = type(error).__name__
            logger.info("rejected with %d: %s", error.status, error)
            await _answer(scope["path"], error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Set the caller of the request. Raises Unauthorized, QuotaExceeded."""
        state = scope.setdefault("state", {})
        if self._keys is None:
            state[_CALLER] = ANYBODY
            return
        if _is_open(scope):
            return
        caller = authenticate(self._keys, self._defaults, sent_key(Headers(scope=scope)))
        if scope["method"] == "POST" and scope["path"] in _UPLOADS and caller.limits:
            self._rates.add(caller.tenant, caller.limits.uploads_per_minute)
        state[_CALLER] = caller


def _is_open(scope: Scope) -> bool:
    """Return whether a request needs no key: probes, the page, and the question of a browser that has no key in it."""
    path: str = scope["path"]
    if scope["method"] in ("GET", "HEAD") and (path in ("/", "/favicon.ico") or path.startswith("/page/")):
        return True  # the page asks for the key, and sends it with its calls
    return path == "/ping" or path.startswith("/health/") or scope["method"] == "OPTIONS"


def sent_key(headers: Headers) -> str:
    """Return the API key that the headers of a request contain; an empty text if there is none."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get(KEY_HEADER, "").strip()


def authenticate(keys: KeyFile | None, defaults: KeyLimits, sent: str) -> Caller:
    """Return the owner of a key, with the limits of its line or else the defaults. Raises Unauthorized."""
    if keys is None:
        return ANYBODY
    if not sent:
        raise Unauthorized(f"this service needs an API key; send it as `Authorization: Bearer KEY` or `{KEY_HEADER}`")
    key = keys.find(sent)
    if key is None:
        raise Unauthorized("the API key is not valid; it may have been revoked")
    return Caller(key.name, key.limits(defaults), key.priorities)


def _answer(path: str, error: Unauthorized | QuotaExceeded) -> JSONResponse:
    if isinstance(error, QuotaExceeded):
        headers = {"Retry-After": str(error.retry_after)}
    else:
        headers = {"WWW-Authenticate": CHALLENGE}
    return JSONResponse(error_body(path, str(error), error.code), error.status, headers)
