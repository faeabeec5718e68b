"""Callers of `GET /v1/live` in tests: a WebSocket of the library `websockets`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.live.messages import FRAME_HEAD, SUBPROTOCOL

SECONDS = 30.0


@dataclass(frozen=True)
class Picture:
    """A frame as the caller gets it."""

    index: int
    sound: np.ndarray
    sound_time: float
    jpeg: bytes

    @classmethod
    def of(cls, data: bytes) -> Picture:
        index, size, time = FRAME_HEAD.unpack_from(data)
        start = FRAME_HEAD.size
        sound = np.frombuffer(data[start : start + size], "<i2")
        return cls(index, sound, time, data[start + size :])


@dataclass
class Caller:
    """One connection; remembers what came."""

    socket: ClientConnection
    pictures: list[Picture] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def start(self, face: bytes = b"a face", **fields: Any) -> dict[str, Any]:
        """Start a session with a face, and return `session` or `error`."""
        if "avatar" not in fields:
            fields = {"face_bytes": len(face), **fields}
        await self.send("start", **fields)
        if "avatar" not in fields:
            await self.socket.send(face)
        return await self.mark("session", "error")

    async def speak(self, samples: np.ndarray) -> None:
        await self.socket.send(samples.astype("<i2").tobytes())

    async def next(self) -> Picture | dict[str, Any]:
        """Return the next message."""
        message = await asyncio.wait_for(self.socket.recv(), SECONDS)
        if isinstance(message, str):
            self.marks.append(json.loads(message))
            return self.marks[-1]
        self.pictures.append(Picture.of(message))
        return self.pictures[-1]

    async def mark(self, *kinds: str) -> dict[str, Any]:
        """Return the next text message of one of these types."""
        while True:
            message = await self.next()
            if isinstance(message, dict) and message["type"] in kinds:
                return message

    async def picture(self) -> Picture:
        """Return the next frame."""
        while not isinstance(message := await self.next(), Picture):
            pass
        return message

    async def close_code(self) -> tuple[int, str]:
        """Read to the end; return the code and the reason of the close."""
        while True:
            try:
                await self.next()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                return closed.rcvd.code, closed.rcvd.reason


@asynccontextmanager
async def calling(url: str, **options: Any) -> AsyncIterator[Caller]:
    """Connect to the gateway at `url`."""
    address = url.replace("http://", "ws://") + "/v1/live"
    settings = {"subprotocols": [SUBPROTOCOL], "max_size": None, "proxy": None, **options}
    async with connect(address, **settings) as socket:
        yield Caller(socket)
