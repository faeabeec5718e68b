"""A Triton whose model `live` makes frames of nothing: the protocol of docs/grpc/live.md without networks.

A frame's "JPEG" is its index as text; its sound is the speech itself. So tests see where everything went.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from lipsync.arrays import Array
from tests.support.fake_triton import FakeTriton

FPS = 25
TOKEN = "of-the-session"  # noqa: S105 - the fake one
INFO: dict[str, Any] = {
    "fps": str(FPS),
    "width": 64,
    "height": 48,
    "frames": 1,
    "latency": 0.2125,
    "format": "jpeg",
    "stand_ins": ["wav2lip"],
    "token": TOKEN,
    "avatar": "prepared-1",
    "sequence_id": "another-secret",
}


_NUMPY = {"UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32}


def inputs_of(request: Any) -> dict[str, Any]:
    """Return the inputs of a request by name: text, or arrays."""
    found: dict[str, Any] = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        is_text = tensor.datatype == "BYTES"
        found[tensor.name] = raw[4:].decode() if is_text else np.frombuffer(raw, _NUMPY[tensor.datatype])
    return found


def _draw(*, bright: bool) -> bytes:
    image = np.full((INFO["height"], INFO["width"], 3), 255 if bright else 20, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


class FakeLive(FakeTriton):
    """One server. Attributes make its sessions fail.

    Attributes:
        refusal: the error of every first request, such as `503 limit of 1 live sessions reached; …`.
        failure: the error of the next request with speech.
        forgotten: whether prepared avatars are unknown.
        is_mute: whether no request is answered, the first one too.
        jpeg_bytes: the least size of a frame.
        draws: whether frames are real JPEGs: bright where their sound is loud, and dark in silence.
        starts: the inputs of each session's first request.
        sessions: those that run.
        ended: sessions that ended by a request, and not by a lost stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusal = self.failure = ""
        self.forgotten = self.is_mute = False
        self.jpeg_bytes = 0
        self.draws = False
        self.starts: list[dict[str, Any]] = []
        self.requests_seen: list[dict[str, Any]] = []
        self.sessions: set[Session] = set()
        self.ended = 0
        self.traceparents: list[str] = []  # of each request; empty where it has none

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        if self.is_mute:
            await asyncio.Event().wait()
        session = Session(self)
        reading = asyncio.create_task(session.read(requests))
        try:
            while (response := await session.responses.get()) is not None:
                yield response
        finally:
            session.stop_rest()
            self.sessions.discard(session)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


class Session:
    """One session; the requests of its stream, in their order."""

    def __init__(self, server: FakeLive) -> None:
        self.server = server
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        self.next = self.segments = self.first = 0
        self.rate = 16_000
        self.received = 0  # samples of the speech so far
        self.buffer = np.zeros(0, np.int16)
        self._resting: asyncio.Task[None] | None = None

    async def read(self, requests: Any) -> None:
        async for request in requests:
            inputs = inputs_of(request)
            self.server.requests_seen.append(inputs)
            self.server.traceparents.append(request.parameters["traceparent"].string_param)
            if request.parameters["sequence_start"].bool_param:
                if not self._start(inputs):
                    break
            elif inputs["token"] != TOKEN:
                self._fail("403 token: not the token of this session")
                break
            if not self._answer(inputs):
                break
            if request.parameters["sequence_end"].bool_param:
                self._segment()
                self._send(summary=json.dumps({"frames": self.next, "duration": self.received / self.rate}))
                self.server.ended += 1
                self.server.sessions.discard(self)
                break
        self.stop_rest()
        self.responses.put_nowait(None)

    def stop_rest(self) -> None:
        if self._resting:
            self._resting.cancel()
            self._resting = None

    def _start(self, inputs: dict[str, Any]) -> bool:
        self.server.starts.append(inputs)
        if self.server.refusal:
            self._fail(self.server.refusal)
            return False
        if "avatar" in inputs and (self.server.forgotten or inputs["avatar"] != INFO["avatar"]):
            self._fail("404 avatar: no such prepared avatar; send face_file")
            return False
        self.rate = int(inputs.get("sample_rate", [16_000])[0])
        self.server.sessions.add(self)
        self._send(session=json.dumps({**INFO, "sample_rate": self.rate}))
        return True

    def _answer(self, inputs: dict[str, Any]) -> bool:
        if not inputs.keys() - {"token", "received"}:
            return True
        self.stop_rest()
        if "clear" in inputs:
            dropped = len(self.buffer) / self.rate
            self.buffer = self.buffer[:0]
            self._send(cleared=json.dumps({"last": self.next - 1, "next": self.next, "dropped": dropped}))
        if "pcm" in inputs and len(inputs["pcm"]):
            if self.server.failure:
                self._fail(self.server.failure)
                return False
            self.buffer = np.concatenate([self.buffer, inputs["pcm"]])
            self.received += len(inputs["pcm"])
            while len(self.buffer) >= self.rate // FPS:
                self._frame()
        if "segment_end" in inputs or "rest" in inputs:
            self._segment()
        if "rest" in inputs:
            self._resting = asyncio.create_task(self._rest())
        return True

    async def _rest(self) -> None:
        while True:
            self._send_frame(np.zeros(self.rate // FPS, np.int16), -1.0)
            await asyncio.sleep(1 / FPS)

    def _frame(self) -> None:
        size = self.rate // FPS
        sound, start = self.buffer[:size], (self.received - len(self.buffer)) / self.rate
        self.buffer = self.buffer[size:]
        self._send_frame(np.pad(sound, (0, size - len(sound))), start)

    def _send_frame(self, sound: Array, start: float) -> None:
        jpeg = str(self.next).encode().ljust(self.server.jpeg_bytes, b" ")
        if self.server.draws:
            jpeg = _draw(bright=bool(np.abs(sound).max() > 1000))
        self._send(
            index=np.array([self.next], np.int32),
            jpeg=np.frombuffer(jpeg, np.uint8),
            sound=sound.astype(np.int16),
            sound_time=np.array([start]),
        )
        self.next += 1

    def _segment(self) -> None:
        while len(self.buffer):
            self._frame()
        if self.next > self.first:
            about = {"segment": self.segments, "first": self.first, "last": self.next - 1}
            self._send(segment=json.dumps(about))
            self.segments += 1
        self.first = self.next

    def _fail(self, message: str) -> None:
        self.responses.put_nowait(pb.ModelStreamInferResponse(error_message=message))

    def _send(self, **outputs: str | Array) -> None:
        response = pb.ModelStreamInferResponse()
        for name, value in outputs.items():
            array = np.array([value.encode()], np.object_) if isinstance(value, str) else value
            kind = {"O": "BYTES", "B": "UINT8", "h": "INT16", "i": "INT32", "d": "FP64"}[array.dtype.char]
            response.infer_response.outputs.add(name=name, datatype=kind, shape=array.shape)
            raw = len(array[0]).to_bytes(4, "little") + array[0] if kind == "BYTES" else array.tobytes()
            response.infer_response.raw_output_contents.append(raw)
        self.responses.put_nowait(response)
