"""The outermost middleware: an id for each request, one access line for it, and its part in the metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avatar.request import choose_id
from gateway.metrics import Metrics

from .logging_config import request_id

logger = logging.getLogger("gateway.access")

ID_HEADER = "X-Request-ID"
# keys in the request's state, for those inside to tell what happened
STAGES = "stages"  # seconds of each stage, by name
FRAMES = "frames"  # pictures in the video that was made
ERROR = "error"  # the class of the error that the answer tells
_PATH_SHOWN = 200  # characters


class RequestContext:
    """Gives the request its id, in the log and in the answer; logs and counts the request when it is over."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        identity = choose_id(Headers(scope=scope).get(ID_HEADER))
        state = scope.setdefault("state", {})
        status: int | None = None

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = identity
            await send(message)

        async def counted() -> Message:
            message = await receive()
            self._metrics.received(len(message.get("body", b"")))
            return message

        token = request_id.set(identity)
        try:
            await self._app(scope, counted, with_id)
        finally:
            seconds = time.perf_counter() - begun
            _log(scope, status, seconds, state.get(STAGES, {}))
            self._count(scope, status, seconds, state)
            request_id.reset(token)

    def _count(self, scope: Scope, status: int | None, seconds: float, state: Mapping[str, Any]) -> None:
        self._metrics.answered(scope, status, seconds)
        if ERROR in state:
            self._metrics.failed(state[ERROR])
        if FRAMES in state:
            self._metrics.made(state[FRAMES], state[STAGES])


def _log(scope: Scope, status: int | None, seconds: float, stages: Mapping[str, float]) -> None:
    path = quote(scope["path"])[:_PATH_SHOWN]  # quoted: no path can forge a log line
    parts = "".join(f" {stage}={spent:.3f}" for stage, spent in stages.items())
    logger.info(
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
