"""The responses that send a video, and give up on a client that takes it in too slowly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .connection import ABORT
from .settings import Settings
from .transfer import Pace

logger = logging.getLogger(__name__)


class Download(FileResponse):
    """A file that the client has to take in at the least rate of the settings: until then it is kept on the disk."""

    def __init__(self, path: Path, *, settings: Settings, **options: Any) -> None:  # noqa: ANN401 - FileResponse's
        super().__init__(path, **options)
        self._file = path
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or close the connection when its time is over."""
        size = self._file.stat().st_size
        await _in_time(super().__call__(scope, receive, _send_start_with_body(send)), scope, size, self._settings)


class PacedStream(StreamingResponse):
    """Bytes of a store that the client has to take in at the least rate of the settings.

    Args:
        size: number of bytes.
    """

    def __init__(
        self,
        content: AsyncIterator[bytes],
        size: int,
        *,
        settings: Settings,
        status_code: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(content, status_code, headers)
        self._size = size
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the bytes, or close the connection when their time is over."""
        await _in_time(super().__call__(scope, receive, _send_start_with_body(send)), scope, self._size, self._settings)


async def _in_time(sending: Awaitable[None], scope: Scope, size: int, settings: Settings) -> None:
    """Wait for a response of this size to be sent, or close the connection when its time is over."""
    now = asyncio.get_running_loop().time()
    pace = Pace(settings.transfer_seconds, settings.transfer_min_rate, now)
    pace.advance(size)
    try:
        async with asyncio.timeout(pace.left(now)) as limit:
            await sending
    except TimeoutError:
        if not limit.expired() or ABORT not in scope["state"]:
            raise
        logger.info("download timed out: it is too slow; %s", pace.rule)
        scope["state"][ABORT]("slow_download")
        # uvicorn learns now that the connection is closed, and expects no more of the response
        await asyncio.sleep(0)


def _send_start_with_body(send: Send) -> Send:
    """Hold the status and the headers back until the file was read: if that fails, an error can still be answered."""
    held: list[Message] = []

    async def send_late(message: Message) -> None:
        if message["type"] == "http.response.start":
            held.append(message)
            return
        while held:
            await send(held.pop())
        await send(message)

    return send_late
