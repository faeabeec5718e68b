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
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.page.files import FOLDER, POLICY

SUBPROTOCOL = Subprotocol("talking-avatar.live.v1")
LATENCY = 0.2125
WIDTH, HEIGHT = 320, 240
INDEX: dict[str, Any] = {"version": "1", "jobs": None, "live": "/v1/live", "stand_ins": [], "needs_key": False}
REST, SPEECH, MARK = 90, 16, 255  # brightness of the pictures
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

    @property
    def cycle(self) -> int:
        """Return the frames of a rest and the segment after it."""
        return round((self.rest + self.speech) * self.fps)

    def place(self, index: int) -> tuple[int, int]:
        """Return the segment of a frame, and its position in it; negative in the rest before it."""
        return index // self.cycle, index % self.cycle - round(self.rest * self.fps)

    def is_marked(self, position: int) -> bool:
        """Tell whether a frame of speech has a white picture and a click."""
        return position % self.mark_every == self.mark_every // 2


@dataclass
class Session:
    """One session: what has come from the page, and what was sent.

    Attributes:
        start: the first message.
        face: the file that followed it.
        samples: the pieces of speech.
        messages: the other messages.
        sent: index of the last frame.
        dropped: number of the segment that the page has cleared.
    """

    start: dict[str, Any]
    face: bytes = b""
    samples: list[NDArray[np.int16]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    sent: int = -1
    dropped: int = -1


class MarkedLive:
    """Sends marked media to each session, and keeps what it gets.

    Attributes:
        media: what is sent.
        sessions: all that were started.
        refusals: errors that the next sessions get in place of an answer.
        pages: JSON of other addresses, by their last part.
        accepts: whether connections are accepted.
    """

    def __init__(self, media: Media) -> None:
        self.media = media
        self.sessions: list[Session] = []
        self.refusals: list[dict[str, Any]] = []
        self.pages: dict[str, Any] = {"": dict(INDEX)}
        self.accepts = True
        self._sockets: list[ServerConnection] = []
        self._rest, self._speech, self._mark = (_jpeg(brightness) for brightness in (REST, SPEECH, MARK))

    def cut(self) -> None:
        """Cut all connections, as a network does that is lost. Thread-safe."""
        for socket in self._sockets:
            socket.loop.call_soon_threadsafe(socket.transport.abort)

    async def handle(self, socket: ServerConnection) -> None:
        """Hold one session until it ends."""
        session = Session(json.loads(await socket.recv()))
        self._sockets.append(socket)
        self.sessions.append(session)
        while session.start["face_bytes"] and len(session.face) < session.start["face_bytes"]:
            session.face += await socket.recv(decode=False)
        if self.refusals:
            await socket.send(json.dumps({"type": "error", "request_id": "marked", **self.refusals.pop(0)}))
            await socket.close(1008)
            return
        await socket.send(json.dumps({"type": "session", **self._info(session)}))
        sending = asyncio.create_task(self._send(socket, session))
        try:
            async for message in socket:
                if await self._answer(socket, session, message):
                    return
        except ConnectionClosed:
            pass
        finally:
            sending.cancel()

    def _info(self, session: Session) -> dict[str, Any]:
        return {
            "fps": str(self.media.fps),
            "width": WIDTH,
            "height": HEIGHT,
            "frames": 1,
            "latency": LATENCY,
            "format": "jpeg",
            "stand_ins": [],
            "avatar": "marked",
            "sample_rate": session.start["sample_rate"],
            "request_id": "marked",
        }

    async def _answer(self, socket: ServerConnection, session: Session, message: str | bytes) -> bool:
        """Take a message; return whether the session has ended."""
        if isinstance(message, bytes):
            session.samples.append(np.frombuffer(message, "<i2"))
            return False
        session.messages.append(json.loads(message))
        kind = session.messages[-1]["type"]
        if kind == "clear":
            session.dropped = (session.sent + 1) // self.media.cycle
            answer = {"type": "cleared", "last": session.sent, "next": session.sent + 1, "dropped": 1.0}
            await socket.send(json.dumps(answer))
        elif kind == "end":
            await socket.send(json.dumps({"type": "summary", "frames": session.sent + 1, "duration": 0.0}))
        return kind == "end"

    async def _send(self, socket: ServerConnection, session: Session) -> None:
        """Send each frame at its time on a clock that begins now; speech comes later by the latency, as live's does."""
        media, random, loop = self.media, np.random.default_rng(1), asyncio.get_running_loop()
        begin = loop.time()
        for index in range(1 << 30):
            segment, position = media.place(index)
            held = media.hold if position > media.cycle // 3 else 0.0
            due = begin + index / media.fps + random.uniform(0, media.jitter)
            if position >= 0:
                due += LATENCY + 0.05 + held
            await asyncio.sleep(max(0.0, due - loop.time()) if segment != session.dropped else 0.04)
            is_speech = position >= 0 and segment != session.dropped
            session.sent = index
            await socket.send(self._frame(index, session, is_speech, is_speech and media.is_marked(position)))
            if is_speech and media.place(index + 1)[0] != segment:
                await socket.send(json.dumps({"type": "segment", "segment": segment, "last": index}))

    def _frame(self, index: int, session: Session, is_speech: bool, is_marked: bool) -> bytes:
        rate = session.start["sample_rate"]
        first, end = (round(n * rate / self.media.fps) for n in (index, index + 1))
        sound = np.zeros(end - first, "<i2")
        if is_marked:
            sound[: round(CLICK_SECONDS * rate)] = 30_000
        jpeg = self._mark if is_marked else self._speech if is_speech else self._rest
        time = index / self.media.fps if is_speech else -1.0
        return struct.pack("<IId", index, sound.nbytes, time) + sound.tobytes() + jpeg


def _jpeg(brightness: int) -> bytes:
    return cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), brightness, np.uint8))[1].tobytes()


def _responder(live: MarkedLive, folders: list[Path]) -> Callable[[ServerConnection, Request], Response | None]:
    """Return a handler that answers plain GETs with JSON and with the files of folders."""

    def respond(_socket: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None if live.accepts else Response(501, "Not Implemented", Headers({"Content-Length": "0"}))
        name = request.path.partition("?")[0].rsplit("/", 1)[-1]
        if name in live.pages and (name or request.headers.get("Accept") == "application/json"):
            return _response(json.dumps(live.pages[name]).encode(), "application/json")
        name = name or "index.html"
        found = next((path for folder in folders if (path := folder / name).is_file()), None)
        if not found:
            return Response(404, "Not Found", Headers({"Content-Length": "0"}))
        return _response(found.read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream")

    return respond


def _response(body: bytes, kind: str) -> Response:
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": POLICY}
    return Response(200, "OK", Headers({**headers, "Connection": "close"}), body)


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
            process_request=_responder(live, [*folders, FOLDER]),
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
