"""A live session: a face once, then speech while it is spoken in, frames out."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import numpy as np
from numpy.typing import NDArray

from . import _errors, _messages
from ._errors import AvatarClientError, Cancelled, InvalidRequest, ServerError, Unavailable
from ._events import Frame, LiveSummary, SessionInfo, parse_json
from ._kserve import InferRequest, InferResponse, StreamResponse
from ._messages import InputTensor
from ._models import check
from ._response_reader import ResponseReader
from ._rotation import Rotation, Server
from ._schema import LIVE, MIN_SAMPLES, RECEIVED, SAMPLE_RATE, SESSION_TOKEN

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_PIECE = 10 * SAMPLE_RATE  # samples of one request; the server accepts three times as many
FULL = 503  # away, stopping, or at its limit of sessions; another server may have a place
Samples = NDArray[np.float32] | NDArray[np.int16]


class LiveSession:
    """One live session. One thread sends the speech and ends it; the same or another one takes the frames.

    Leaving a `with` block by an error, or without `end`, cancels the session; after `end`, the remaining frames may
    also be taken outside of the block. An error ends the session: it is raised where frames are taken, and again where
    more speech is sent.

    Attributes:
        info: what the server said when the session started.
        summary: what the server said at its end; None before.
    """

    info: SessionInfo

    def __init__(self, server: Server, on_lost: Callable[[Server], object], face: Sequence[InputTensor]) -> None:
        """Made by `AvatarClient.live`; waits for the server to start the session."""
        self.summary: LiveSummary | None = None
        self._server, self._on_lost = server, on_lost
        self._connection = connection = server.connection
        self._id = secrets.randbelow(2**63 - 1) + 1
        self._error: AvatarClientError | None = None
        self._lock = threading.Lock()  # pieces are sent in order, and none after the end
        self._started = self._speech_ended = self._cancelled = self._stream_ended = False
        self._requests: queue.SimpleQueue[InferRequest | None] = queue.SimpleQueue()
        self._reader = ResponseReader(connection.stream(iter(self._requests.get, None)))
        # Triton may change the order of responses to different requests, so frames wait for those before them.
        self._frames: dict[int, Frame] = {}
        self._next = 0  # index of the next frame in order
        self._samples = 0  # of the speech that was sent
        self._put(face, start=True)
        try:
            self.info = self._wait_for_start()
            self._started = True
        except BaseException:
            self.cancel()
            raise

    def send(self, samples: Samples) -> None:
        """Send the next part of the speech, without waiting for its frames.

        Args:
            samples: 16 kHz mono, at least 320 (20 ms); FP32 [n] with full scale ±1, or INT16 [n]. A long part is sent
                in pieces.

        Raises:
            InvalidRequest: another type, or too few samples.
            AvatarClientError: the session has failed.
            RuntimeError: the speech has ended.
        """
        pieces = _pieces(samples)
        if len(samples) < MIN_SAMPLES:
            name = pieces[0].name if pieces else "audio"
            raise InvalidRequest(f"{name}: at least {MIN_SAMPLES} samples expected, got {len(samples)}")
        with self._lock:
            self._check_open()
            for piece in pieces:
                self._put([piece])
            self._samples += len(samples)

    def end(self, samples: Samples | None = None) -> None:
        """End the speech: the remaining frames follow, and then `summary`. A second call does nothing.

        Args:
            samples: the last part of the speech, as `send` takes it, but of any length.

        Raises:
            InvalidRequest: they are of another type.
            AvatarClientError: the session has failed.
        """
        pieces = [] if samples is None else _pieces(samples)
        with self._lock:
            if not self._speech_ended:
                self._check_open()
                self._speech_ended = True
                *others, last = pieces or [InputTensor("pcm", "INT16", (0,), b"")]
                for piece in others:
                    self._put([piece])
                self._put([last], end=True)
                self._requests.put(None)

    def frames(self, *, block: bool = True) -> Iterator[Frame]:
        """Yield the frames that were received and, unless `block` is False, wait for more until the session ends.

        Raises:
            AvatarClientError: the session has failed; `Unavailable` also where a frame is due, or the end, and no
                response comes within the client's timeout.
        """
        while not self._stream_ended:
            is_due = self._is_due()
            try:
                message = self._take(self._connection.timeout if block else 0.0)
            except TimeoutError:
                if not block:
                    return
                if not is_due:  # the next response depends on what the caller sends
                    continue
                self.cancel()
                self._error = _errors.no_response(self._connection.address)
                raise self._error from None
            self._handle(message)
            yield from self._in_order()

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def _in_order(self) -> Iterator[Frame]:
        """Yield the frames that no other one has to come before; at the end of the stream, all that are left."""
        while self._next in self._frames or (self._stream_ended and self._frames):
            frame = self._frames.pop(self._next, None) or self._frames.pop(min(self._frames))
            self._next = frame.index + 1
            yield frame

    def cancel(self) -> None:
        """Cancel the session, from any thread. Taking frames then raises `Cancelled`."""
        self._cancelled = True
        self._reader.close()
        self._requests.put(None)  # last, because on its own it would end the stream in an orderly way

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error or not self._speech_ended:
            self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_reader"):
            self.cancel()

    def _put(self, inputs: Sequence[InputTensor], *, start: bool = False, end: bool = False) -> None:
        if not start and self.info.token:
            received = np.array([self._next - 1], np.int32)
            token = _messages.text_tensor(SESSION_TOKEN, self.info.token)
            inputs = (*inputs, token, _messages.array_tensor(RECEIVED, "INT32", received))
        parameters = {"sequence_id": self._id, "sequence_start": start, "sequence_end": end}
        self._requests.put(_messages.request(LIVE.name, inputs, parameters=parameters))

    def _is_due(self) -> bool:
        """Return whether the server has to send something without more speech."""
        complete = self._samples / SAMPLE_RATE - self.info.latency  # seconds of frames
        return self._speech_ended or self._next < int(complete * self.info.fps)

    def _wait_for_start(self) -> SessionInfo:
        while True:
            try:
                message = self._take(self._connection.timeout)
            except TimeoutError:
                raise _errors.no_response(self._connection.address) from None
            if message is None:
                raise ServerError(f"{self._connection.address} ended the session before it started")
            texts = _messages.texts(_messages.unwrap(message))
            if "session" in texts:
                return parse_json(SessionInfo, texts["session"])

    def _check_open(self) -> None:
        if self._error:
            raise self._error
        if self._speech_ended or self._cancelled:
            raise RuntimeError("the speech has ended")

    def _take(self, seconds: float | None) -> StreamResponse | None:
        """Return the next response, None at the end. Raises TimeoutError."""
        try:
            return self._reader.take(seconds)
        except grpc.RpcError as error:
            if self.summary:  # nothing is missing
                return None
            self._error = self._meaning(error)
            raise self._error from error

    def _meaning(self, error: grpc.RpcError) -> AvatarClientError:
        """Return what the end of the stream means; also tell the client if the server is lost."""
        if self._cancelled:
            return Cancelled("the session was cancelled")
        failed = _errors.from_rpc_error(error, self._connection.address)
        if _errors.is_lost(error):
            self._on_lost(self._server)
            if self._started:
                return Unavailable(f"{failed.message}; the live session is lost with its server, start a new one")
        return failed

    def _handle(self, message: StreamResponse | None) -> None:
        """Read a response; None is the stream's end."""
        try:
            if message is not None:
                self._read(_messages.unwrap(message))
                return
            self._stream_ended = True
            if self.summary is None:
                raise ServerError(f"{self._connection.address} ended the session before the speech")
        except AvatarClientError as error:
            self._error, self._stream_ended = error, True
            self.cancel()
            raise

    def _read(self, response: InferResponse) -> None:
        texts, arrays = _messages.texts(response), _messages.arrays(response)
        if "index" in arrays:
            image, jpeg = arrays.get("frame"), arrays.get("jpeg")
            x1, y1, x2, y2 = arrays["box"].tolist() if "box" in arrays else (0, 0, 0, 0)
            data = None if jpeg is None else jpeg.tobytes()
            index = int(arrays["index"][0])
            self._frames[index] = Frame(index, image, data, (x1, y1, x2, y2))
        if "summary" in texts:
            self.summary = parse_json(LiveSummary, texts["summary"])


def start_session(rotation: Rotation, face: Sequence[InputTensor]) -> LiveSession:
    """Start a session on the server whose turn it is, or on another one if that is away or full."""
    start, errors = time.monotonic(), list[Unavailable]()
    for server in rotation.each():
        try:
            return LiveSession(server, rotation.failed, face)
        except Unavailable as error:
            if error.code != FULL:  # the caller is at its limit, wherever it calls
                raise
            errors.append(error)
        if time.monotonic() > start + server.connection.timeout:
            break
    # that a server is full says more than that another one is away
    raise min(errors, key=lambda each: isinstance(each.__cause__, grpc.RpcError))


def _pieces(samples: Samples) -> list[InputTensor]:
    """Return speech as inputs of a length that the server accepts. Raises InvalidRequest for another type."""
    is_pcm = isinstance(samples, np.ndarray) and samples.dtype == np.int16
    name, dtype = ("pcm", "INT16") if is_pcm else ("audio", "FP32")
    check(name, dtype, (-1,), samples)
    if not len(samples):
        return []
    pieces = np.array_split(samples, -(-len(samples) // MAX_PIECE))
    return [_messages.array_tensor(name, dtype, piece) for piece in pieces]
