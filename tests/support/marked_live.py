"""A service of `/v1/live` whose frames carry marks: white pictures, and clicks at the first sample of their sound.

It serves a folder of the page too, so that the page and its socket have one origin, as at the gateway.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.page.files import FOLDER, POLICY

SUBPROTOCOL = Subprotocol("talking-avatar.live.v1")
LATENCY = 0.2125
WIDTH, HEIGHT = 320, 240
CLICK_SECONDS = 0.003


@dataclass(frozen=True)
class Media:
    """What the service sends by itself, in real time.

    Attributes:
        fps: of the pictures.
        rest: seconds at rest between two segments of speech.
        speech: seconds of speech.
        mark_every: frames of speech from one mark to the next.
        jitter: seconds by which a message may be later than its time.
        hold: seconds for which everything is held back once in each segment.
    """

    fps: float = 25.0
    rest: float = 1.0
    speech: float = 4.0
    mark_every: int = 23
    jitter: float = 0.03
    hold: float = 0.0


@dataclass
class Received:
    """What a session has got from the page."""

    start: dict[str, Any]
    face: bytes = b""
    samples: list[NDArray[np.int16]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)


class MarkedLive:
    """Sends marked media to each session, and keeps what it gets."""

    def __init__(self, media: Media) -> None:
        self.media = media
        self.sessions: list[Received] = []
        self._black, self._white = _jpeg(16), _jpeg(255)

    async def handle(self, socket: ServerConnection) -> None:
        """Hold one session until it ends."""
        start = json.loads(await socket.recv())
        received = Received(start)
        self.sessions.append(received)
        while start["face_bytes"] and len(received.face) < start["face_bytes"]:
            received.face += await socket.recv(decode=False)
        info = {"fps": str(self.media.fps), "width": WIDTH, "height": HEIGHT, "frames": 1, "latency": LATENCY}
        info |= {"format": "jpeg", "stand_ins": [], "avatar": "marked", "sample_rate": start["sample_rate"]}
        await socket.send(json.dumps({"type": "session", **info, "request_id": "marked"}))
        sending = asyncio.create_task(self._send(socket, start["sample_rate"]))
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    received.samples.append(np.frombuffer(message, "<i2"))
                    continue
                received.messages.append(json.loads(message))
                if received.messages[-1]["type"] == "end":
                    break
            else:
                return  # the page is gone
            await socket.send(json.dumps({"type": "summary", "frames": 0, "duration": 0.0, "without_face": 0}))
        finally:
            sending.cancel()

    async def _send(self, socket: ServerConnection, rate: int) -> None:
        """Send each frame at its time on a clock that begins now; speech comes later by the latency, as live's does."""
        media, random = self.media, np.random.default_rng(1)
        loop = asyncio.get_running_loop()
        begin, cycle = loop.time(), round((media.rest + media.speech) * media.fps)
        resting = round(media.rest * media.fps)
        for index in range(1 << 30):
            position = index % cycle - resting  # in the segment; negative at rest
            late = LATENCY + 0.05 if position >= 0 else 0.0
            held = media.hold if position > cycle // 3 else 0.0
            due = begin + index / media.fps + late + held + random.uniform(0, media.jitter)
            await asyncio.sleep(due - loop.time())
            marked = position >= 0 and position % media.mark_every == media.mark_every // 2
            await socket.send(self._frame(index, rate, -1.0 if position < 0 else index / media.fps, marked))
            if position == cycle - resting - 1:
                await socket.send(json.dumps({"type": "segment", "segment": index // cycle, "last": index}))

    def _frame(self, index: int, rate: int, time: float, marked: bool) -> bytes:
        first, end = (round(n * rate / self.media.fps) for n in (index, index + 1))
        sound = np.zeros(end - first, "<i2")
        if marked:
            sound[: round(CLICK_SECONDS * rate)] = 30_000
        return (
            struct.pack("<IId", index, sound.nbytes, time) + sound.tobytes() + (self._white if marked else self._black)
        )


def _jpeg(brightness: int) -> bytes:
    return cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), brightness, np.uint8))[1].tobytes()


def _responder(folders: list[Path]) -> Callable[[ServerConnection, Request], Response | None]:
    """Return a handler that answers plain GETs with the files of folders."""

    def respond(_socket: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        name = request.path.partition("?")[0].rsplit("/", 1)[-1] or "index.html"
        found = next((path for folder in folders if (path := folder / name).is_file()), None)
        if not found:
            return Response(404, "Not Found", Headers({"Content-Length": "0"}))
        body, kind = found.read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream"
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": POLICY}
        return Response(200, "OK", Headers({**headers, "Connection": "close"}), body)

    return respond


@contextmanager
def serve_marked_live(media: Media, *folders: Path) -> Iterator[tuple[str, MarkedLive]]:
    """Serve marked sessions, the page and the files of folders in a thread; give the address of the page."""
    live, loop = MarkedLive(media), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> Server:
        return await serve(
            live.handle,
            "127.0.0.1",
            0,
            subprotocols=[SUBPROTOCOL],
            process_request=_responder([*folders, FOLDER]),
            max_size=2**24,
        )

    async def end(server: Server) -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", live
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
