"""Middleware for WebSockets: what `gateway.middleware.RequestContext` does for requests."""

from __future__ import annotations

import logging
import time
from typing import cast

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avatar import tracing
from avatar.request import choose_id
from avatar.tracing import request_id

from .metrics import Metrics
from .middleware import ERROR, ID_HEADER

access_logger = logging.getLogger("gateway.access")

SWITCHING = 101


class SocketContext:
    """Sets the id of a WebSocket for the log; traces, logs and counts it when it ends."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, or pass on anything else."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identity = choose_id(headers.get(ID_HEADER))
        token = request_id.set(identity)
        about = {"http.request.method": "GET", "url.path": scope["path"]}
        try:
            parent = headers.get("traceparent")
            with tracing.span("GET", about, kind="server", parent=parent, request_id=identity) as span:
                status = await self._serve(scope, receive, send)
                route = getattr(scope.get("route"), "path", "")
                if route:
                    span.rename(f"GET {route}")
                span.set({"http.route": route, "http.response.status_code": status or 0})
                if status is None or status >= 500:
                    span.fail(scope["state"].get(ERROR, "") or f"status {status}")
        finally:
            request_id.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> int | None:
        """Serve it; return the status of the response to the upgrade."""
        start, status = time.perf_counter(), None
        state = scope.setdefault("state", {})
        scope["method"] = "GET"  # as of a request, for the metrics

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = SWITCHING
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        finally:
            seconds = time.perf_counter() - start
            fields = {"method": "GET", "path": scope["path"], "status": status, "seconds": round(seconds, 6)}
            access_logger.info(
                "GET %s %s %.3f s", scope["path"], status or "-", seconds, extra={"fields": {**fields, "stages": {}}}
            )
            self._metrics.count_socket(scope, status)
            if ERROR in state:
                self._metrics.count_error(cast("str", state[ERROR]))
        return status
