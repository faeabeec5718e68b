"""A live session: a face once, then speech as it is spoken, frames out."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
import numpy as np
from numpy.typing import NDArray

from . import _errors, _messages
from ._connection import Connection
from ._errors import AvatarClientError, Cancelled, ServerError
from ._events import Frame, LiveSummary, SessionInfo, parse_json
from ._messages import InputTensor, Message
from ._models import check
from ._response_reader import ResponseReader
from ._schema import LIVE, MIN_SAMPLES, SAMPLE_RATE

if TYPE_CHECKING:
    from typing_extensions import Self

LONGEST_PIECE = 10 * SAMPLE_RATE  # samples of one request; the server takes three times as many
Samples = NDArray[np.float32] | NDArray[np.int16]


class LiveSession:
    """One session under way. One thread sends and ends, the same or another one takes the frames.

    Leaving a `with` block by an error, or without `end`, cancels it; after `end` the rest may be taken outside, too.
    An error ends the session: it is raised where frames are taken, and again where more is sent.

    Attributes:
        info: what the server said of it.
        summary: what it said at its end; None before.
    """

    info: SessionInfo

    def __init__(self, connection: Connection, face: Sequence[InputTensor]) -> None:
        """Made by `AvatarClient.live`; waits for the server to begin it."""
        self.summary: LiveSummary | None = None
        self._connection = connection
        self._id = secrets.randbelow(2**63 - 1) + 1
        self._error: AvatarClientError | None = None
        self._lock = threading.Lock()  # pieces are sent in order, and none after the end
        self._ended = self._cancelled = self._over = False
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._inbox = ResponseReader(connection.stream(iter(self._requests.get, None)))
        self._frames: list[Frame] = []
        self._put(face, start=True)
        try:
            self.info = self._begun()
        except BaseException:
            self.cancel()
            raise

    def send(self, samples: Samples) -> None:
        """Speak on. It does not wait for the frames.

        Args:
            samples: 16 kHz mono, 320 (20 ms) or more; FP32 [n] with full scale ±1, or INT16 [n]. Much at once is sent
                in pieces.

        Raises:
            InvalidRequest: it is another type, or too short.
            AvatarClientError: the session has failed.
            RuntimeError: the speech has ended.
        """
        pieces = _pieces(samples)
        if len(samples) < MIN_SAMPLES:
            name = pieces[0].name if pieces else "audio"
            raise _errors.InvalidRequest(f"{name}: {MIN_SAMPLES} samples or more expected, got {len(samples)}")
        with self._lock:
            self._check_open()
            for piece in pieces:
                self._put([piece])

    def end(self, samples: Samples | None = None) -> None:
        """The speech is over: the frames that are still to come, come, and then `summary`. Again, it does nothing.

        Args:
            samples: the last of it, as `send` takes them, and as few as there are.

        Raises:
            InvalidRequest: they are of another type.
            AvatarClientError: the session has failed.
        """
        pieces = [] if samples is None else _pieces(samples)
        with self._lock:
            if not self._ended:
                self._check_open()
                self._ended = True
                *others, last = pieces or [InputTensor("pcm", "INT16", (0,), b"")]
                for piece in others:
                    self._put([piece])
                self._put([last], end=True)
                self._requests.put(None)

    def frames(self, *, block: bool = True) -> Iterator[Frame]:
        """The frames that have come and, unless `block` is False, those to come, to the speech's end.

        Raises:
            AvatarClientError: the session has failed; `Unavailable` also where, after `end`, nothing is heard for the
                client's timeout.
        """
        while not self._over:
            # before the end it is for the caller to say something
            patience = self._connection.timeout if self._ended else None
            try:
                message = self._take(patience if block else 0.0)
            except TimeoutError:
                if not block:
                    return
                self.cancel()
                self._error = _errors.no_response(self._connection.address)
                raise self._error from None
            self._understand(message)
            while self._frames:
                yield self._frames.pop(0)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def cancel(self) -> None:
        """Have the server stop, from any thread. Who takes frames gets `Cancelled`."""
        self._cancelled = True
        self._inbox.close()
        self._requests.put(None)  # not before: that alone would be an orderly end

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error or not self._ended:
            self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_inbox"):
            self.cancel()

    def _put(self, inputs: Sequence[InputTensor], *, start: bool = False, end: bool = False) -> None:
        parameters = {"sequence_id": self._id, "sequence_start": start, "sequence_end": end}
        self._requests.put(_messages.request(LIVE.name, inputs, parameters=parameters))

    def _begun(self) -> SessionInfo:
        while True:
            try:
                message = self._take(self._connection.timeout)
            except TimeoutError:
                raise _errors.no_response(self._connection.address) from None
            if message is None:
                raise ServerError(f"{self._connection.address} ended the session before it began")
            texts = _messages.texts(_messages.answer(message))
            if "session" in texts:
                return parse_json(SessionInfo, texts["session"])

    def _check_open(self) -> None:
        if self._error:
            raise self._error
        if self._ended or self._cancelled:
            raise RuntimeError("the speech has ended")

    def _take(self, seconds: float | None) -> Message | None:
        """The next answer, None at the end. Raises TimeoutError."""
        try:
            return self._inbox.take(seconds)
        except grpc.RpcError as error:
            if self.summary:  # nothing is missing
                return None
            raised = Cancelled("the session was cancelled") if self._cancelled else None
            self._error = raised or _errors.from_rpc_error(error, self._connection.address)
            raise self._error from error

    def _understand(self, message: Message | None) -> None:
        try:
            if message is not None:
                self._read(_messages.answer(message))
                return
            self._over = True
            if self.summary is None:
                raise ServerError(f"{self._connection.address} ended the session before the speech")
        except AvatarClientError as error:
            self._error, self._over = error, True
            self.cancel()
            raise

    def _read(self, response: Message) -> None:
        texts, arrays = _messages.texts(response), _messages.arrays(response)
        if "index" in arrays:
            image, jpeg = arrays.get("frame"), arrays.get("jpeg")
            x1, y1, x2, y2 = arrays["box"].tolist() if "box" in arrays else (0, 0, 0, 0)
            data = None if jpeg is None else jpeg.tobytes()
            self._frames.append(Frame(int(arrays["index"][0]), image, data, (x1, y1, x2, y2)))
        if "summary" in texts:
            self.summary = parse_json(LiveSummary, texts["summary"])


def _pieces(samples: Samples) -> list[InputTensor]:
    """What is said, in requests of a length that the server takes. Raises InvalidRequest for another type."""
    whole = isinstance(samples, np.ndarray) and samples.dtype == np.int16
    name, dtype = ("pcm", "INT16") if whole else ("audio", "FP32")
    check(name, dtype, (-1,), samples)
    if not len(samples):
        return []
    return [
        _messages.array_tensor(name, dtype, piece)
        for piece in np.array_split(samples, -(-len(samples) // LONGEST_PIECE))
    ]
