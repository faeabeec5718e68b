"""One session of the model `live`, over one gRPC stream of one server: requests in, frames and marks out.

docs/grpc/live.md describes the protocol. A session stays with its server, so it ends with that server.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grpc
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from lipsync.arrays import Array
from lipsync.tensors import CLEAR, LIVE, RECEIVED, SESSION_TOKEN

from ..errors import AvatarError, ClientError, Unavailable
from ..streams import cancel_and_wait
from ..tracing import traceparent, triton_request_id
from .live_failures import cause, error_of, lost

CLOSE_SECONDS = 2.0  # for the server to end a session in an orderly way
MAX_REQUESTS = 1000  # that wait in this process, while the server takes none
BUFFERED = 32  # events that wait in this process; the rest waits at the server
MARKS = ("segment", "cleared", "summary")
NO_PCM = np.zeros(0, np.int16)

Value = Array | str
Inputs = Mapping[str, Value]


@dataclass(frozen=True)
class LiveFrame:
    """One frame, to be shown at `index` / fps of the session.

    Attributes:
        jpeg: the image.
        sound: INT16 little endian, mono, at the session's rate: what is played while the frame is shown.
        sound_time: where the sound begins in the caller's speech, in seconds; -1 while the face rests.
    """

    index: int
    jpeg: bytes
    sound: bytes
    sound_time: float


@dataclass(frozen=True)
class LiveMark:
    """The end of a segment, the answer to `clear`, or the end of the session; `kind` is one of MARKS."""

    kind: str
    data: Mapping[str, Any]


LiveEvent = LiveFrame | LiveMark


class LiveSource(Protocol):
    """A session that was started; what the gateway uses of `LiveStream`."""

    info: Mapping[str, Any]

    def send(self, inputs: Inputs, *, received: int, end: bool = False) -> None:
        """Send the next request, without waiting for its frames; `received` is the last frame that was passed on.

        Raises:
            ClientError: too many requests wait.
        """

    async def read(self) -> LiveEvent | None:
        """Return what comes next; None after the end. Raises AvatarError."""

    async def close(self) -> None:
        """End the session, if it has not ended."""


@runtime_checkable
class OffersLive(Protocol):
    """An `InferenceClient` that can start live sessions."""

    async def live(self, inputs: Inputs) -> LiveSource:
        """Start a session; `inputs` are those of its first request. Raises AvatarError."""


class _Responses(Protocol):
    """What tritonclient returns for a stream."""

    async def __anext__(self) -> tuple[InferResult | None, InferenceServerException | None]: ...

    def cancel(self) -> bool: ...


OpenStream = Callable[..., _Responses]


class LiveStream:
    """Implements `LiveSource`. For one event loop.

    Attributes:
        info: the JSON of `session`, without its secrets.
    """

    def __init__(self, address: str, on_close: Callable[[], None]) -> None:
        """Make a session that is not started; `on_close` is called once, when it is over."""
        self.info: Mapping[str, Any] = {}
        self._address, self._on_close = address, on_close
        self._sequence = secrets.randbelow(2**63 - 1) + 1
        self._token = ""
        self._requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._responses: _Responses | None = None
        # A read that is cancelled cancels the whole stream: so one task reads it, and only `close` cancels that.
        self._reader: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[LiveEvent | AvatarError | None] = asyncio.Queue(BUFFERED)
        self._ended = self._over = False  # the last request was sent; the last response was taken
        self._is_closed = False

    async def start(self, open_stream: OpenStream, inputs: Inputs, seconds: float) -> None:
        """Open the stream, and wait for `session`.

        Raises:
            AvatarError: as `read`; Unavailable also where nothing comes in time.
        """
        try:
            self._put({**inputs, SESSION_TOKEN: ""}, start=True)
            responses = open_stream(self._sent())
            self._responses = responses
            async with asyncio.timeout(seconds):
                outputs = await self._take(responses)
        except TimeoutError:
            await self._cancel()
            raise Unavailable(f"live at {self._address} did not answer in time") from cause("DEADLINE_EXCEEDED")
        except BaseException:
            await self._cancel()
            raise
        info = json.loads(_text(outputs, "session")) if outputs else {}
        self._token = str(info.pop("token", ""))
        info.pop("sequence_id", None)
        self.info = info
        self._reader = asyncio.create_task(self._read_all(responses))

    def send(self, inputs: Inputs, *, received: int, end: bool = False) -> None:
        """As `LiveSource`."""
        if self._requests.qsize() >= MAX_REQUESTS:
            raise ClientError(f"{MAX_REQUESTS} messages wait for the model; send fewer of them")
        if not self._ended:
            self._ended = end
            about: Inputs = {SESSION_TOKEN: self._token, RECEIVED: np.array([received], np.int32)}
            self._put({**inputs, **about}, end=end)
            if end:
                self._requests.put_nowait(None)

    async def read(self) -> LiveEvent | None:
        """As `LiveSource`."""
        event = None if self._over else await self._events.get()
        self._over = self._over or event is None or isinstance(event, AvatarError)
        if isinstance(event, AvatarError):
            raise event
        return event

    async def close(self) -> None:
        """As `LiveSource`: its place at the server is free at once if the server is there."""
        try:
            if not self._over and self._reader:
                with suppress(AvatarError, TimeoutError):
                    self.send({CLEAR: np.array([-1], np.int32), "pcm": NO_PCM}, received=-1, end=True)
                    async with asyncio.timeout(CLOSE_SECONDS):
                        while await self.read() is not None:
                            pass
        finally:
            await self._cancel()

    async def _cancel(self) -> None:
        self._over = True
        if self._is_closed:
            return
        self._is_closed = True
        if self._responses:
            self._responses.cancel()
        self._requests.put_nowait(None)
        if self._reader:
            await cancel_and_wait(self._reader)
        self._on_close()

    def _put(self, inputs: Inputs, *, start: bool = False, end: bool = False) -> None:
        # only the first request is traced: a session has one every few milliseconds
        parent = traceparent(sampled_only=True) if start else None
        self._requests.put_nowait(
            {
                "model_name": LIVE.name,
                "inputs": [_input(name, value) for name, value in inputs.items()],
                "request_id": triton_request_id(),
                "sequence_id": self._sequence,
                "sequence_start": start,
                "sequence_end": end,
                "parameters": {"traceparent": parent} if parent else None,
            }
        )

    async def _sent(self) -> AsyncIterator[dict[str, object]]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _read_all(self, responses: _Responses) -> None:
        """Pass on what comes, until the end or an error; while it is not taken, gRPC keeps the server from sending."""
        try:
            while (outputs := await self._take(responses)) is not None:
                for event in _events(outputs):
                    await self._events.put(event)
            await self._events.put(None)
        except AvatarError as error:
            await self._events.put(error)

    async def _take(self, responses: _Responses) -> dict[str, Array] | None:
        """Return the outputs of the next response, None at the end. Raises AvatarError."""
        try:
            result, error = await responses.__anext__()
        except StopAsyncIteration:
            if self._ended:
                return None
            raise Unavailable(f"the live session was ended by {self._address}") from cause("UNAVAILABLE")
        except grpc.RpcError as failure:
            raise lost(failure.code().name, was_started=self._reader is not None) from cause("UNAVAILABLE")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            # the connection was closed, which cancels its calls; this task was not cancelled
            raise lost("CANCELLED", was_started=self._reader is not None) from cause("UNAVAILABLE")
        if error is not None:
            raise error_of(str(error.message()))
        assert result is not None  # noqa: S101 - for the type
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def _input(name: str, value: Value) -> InferInput:
    array = np.array([value.encode()], np.object_) if isinstance(value, str) else value
    sent = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    sent.set_data_from_numpy(array)
    return sent


def _events(outputs: Mapping[str, Array]) -> Iterator[LiveEvent]:
    if "index" in outputs:
        yield _frame(outputs)
    for kind in MARKS:
        if kind in outputs:
            yield LiveMark(kind, json.loads(_text(outputs, kind)))


def _frame(outputs: Mapping[str, Array]) -> LiveFrame:
    sound, time = outputs.get("sound"), outputs.get("sound_time")
    return LiveFrame(
        int(outputs["index"][0]),
        outputs["jpeg"].tobytes() if "jpeg" in outputs else b"",
        b"" if sound is None else sound.tobytes(),
        -1.0 if time is None else float(time[0]),
    )


def _text(outputs: Mapping[str, Array], name: str) -> str:
    return bytes(outputs[name][0]).decode() if name in outputs else "{}"
