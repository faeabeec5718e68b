"""Middleware: request ids, traces, the access log, metrics, and the response to an unexpected exception."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import quote

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avatar import tracing
from avatar.request import choose_id
from avatar.tracing import request_id

from .codes import ErrorCode
from .errors import INTERNAL_ERROR, error_body, has_body
from .metrics import Metrics
from .unknown_fields import HEADER as IGNORED_HEADER
from .unknown_fields import STATE as IGNORED

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("gateway.access")

ID_HEADER = "X-Request-ID"
# Keys of the request's state: the application leaves what happened there, for the log and the metrics.
STAGES = "stages"  # seconds of each stage, by name
FRAMES = "frames"  # frames of the rendered video
ERROR = "error"  # class of the error in the response
_MAX_PATH = 200  # characters of the path in a log line
_UNTRACED = ("/ping", "/health/live", "/health/ready", "/metrics")  # what is asked every few seconds


class RequestContext:
    """Outermost middleware: sets the request's id in log and response; traces, logs and counts the request.

    Responses of a gateway that is `draining` close their connection, so that the next request goes to another one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, draining: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = choose_id(Headers(scope=scope).get(ID_HEADER))
        token = request_id.set(identity)
        try:
            if scope["path"] in _UNTRACED:
                await self._serve(scope, receive, send, identity)
            else:
                await self._trace(scope, receive, send, identity)
        finally:
            request_id.reset(token)

    async def _trace(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        """Serve one request within its span, which lasts until the last byte of the response is sent."""
        method, parent = scope["method"], Headers(scope=scope).get("traceparent")
        about = {"http.request.method": method, "url.path": scope["path"][:_MAX_PATH]}
        with tracing.span(method, about, kind="server", parent=parent, request_id=identity) as span:
            status = await self._serve(scope, receive, send, identity)
            if route := getattr(scope.get("route"), "path", ""):
                span.rename(f"{method} {route}")
                span.set({"http.route": route})
            if status is not None:
                span.set({"http.response.status_code": status})
            if status is None or status >= 500:
                span.fail(scope["state"].get(ERROR, "") or f"status {status}")

    async def _serve(self, scope: Scope, receive: Receive, send: Send, identity: str) -> int | None:
        """Serve one request; return the status of the response, None where there was none."""
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        status: int | None = None
        unread = has_body(scope)  # closing now would cut the client off before it has read the response

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[ID_HEADER] = identity
                headers["X-Content-Type-Options"] = "nosniff"
                if IGNORED in state:
                    headers[IGNORED_HEADER] = state[IGNORED]
                if self._draining() and not unread:
                    headers["Connection"] = "close"
            await send(message)

        async def receive_counted() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            self._metrics.count_upload(len(message.get("body", b"")))
            return message

        try:
            await self._app(scope, receive_counted, send_with_id)
        finally:
            seconds = time.perf_counter() - start
            _log(scope, status, seconds, state.get(STAGES, {}))
            self._count(scope, status, seconds, state)
        return status

    def _count(self, scope: Scope, status: int | None, seconds: float, state: Mapping[str, object]) -> None:
        self._metrics.observe_request(scope, status, seconds)
        if ERROR in state:
            self._metrics.count_error(cast("str", state[ERROR]))
        if FRAMES in state:
            self._metrics.observe_render(cast("int", state[FRAMES]), cast("Mapping[str, float]", state[STAGES]))


class InternalErrorMiddleware:
    """Answers an unexpected exception with a plain 500; the traceback goes to the log only.

    It runs inside the CORS middleware, so that a browser may read this response too. (Starlette's
    own handler for `Exception` runs outside of it, and raises the exception again.)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def send_watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except Exception:
            scope["state"][ERROR] = INTERNAL_ERROR
            if started:  # too late for another response: the server closes the connection
                raise
            logger.exception("internal error")
            content = error_body(scope["path"], "internal error", ErrorCode.INTERNAL_ERROR)
            response = JSONResponse(content | {"request_id": request_id.get()}, 500)
            await response(scope, receive, send)


def _log(scope: Scope, status: int | None, seconds: float, stages: Mapping[str, float]) -> None:
    path = quote(scope["path"])[:_MAX_PATH]  # quoted: no path can forge a log line
    parts = "".join(f" {stage}={spent:.3f}" for stage, spent in stages.items())
    access_logger.info(
        "%s %s %s %.3f s%s",
        scope["method"],
        path,
        "-" if status is None else status,
        seconds,
        parts,
        extra={
            "fields": {
                "method": scope["method"],
                "path": path,
                "status": status,
                "seconds": round(seconds, 6),
                "stages": {stage: round(spent, 6) for stage, spent in stages.items()},
            }
        },
    )
