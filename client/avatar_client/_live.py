"""A live session: a face once, then speech while it is spoken in, frames out."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from . import _errors, _messages
from ._errors import AvatarClientError, Cancelled, ServerError, Unavailable
from ._events import Cleared, Frame, LiveEvent, LiveSummary, SegmentEnd, SessionInfo, parse_json
from ._kserve import InferRequest, InferResponse, StreamResponse
from ._live_inputs import NO_SPEECH, Samples, number, speech
from ._live_order import EventOrder
from ._live_responses import read_response
from ._messages import InputTensor
from ._response_reader import ResponseReader
from ._rotation import Server
from ._schema import CLEAR, LIVE, RECEIVED, REST, SEGMENT_END, SESSION_TOKEN

if TYPE_CHECKING:
    from typing_extensions import Self

ACKNOWLEDGE_SECONDS = 2.0  # of frames at rest, after which the session tells the server that they were read
UNTIL_NEXT_CALL = -1


class LiveSession:
    """One live session. One thread sends the speech and ends it; the same or another one takes what the server sends.

    Leaving a `with` block by an error, or without `end`, cancels the session; after `end`, the remaining frames may
    also be taken outside of the block. An error ends the session: it is raised where frames are taken, and again where
    more is sent.

    Attributes:
        info: what the server said when the session started.
        summary: what the server said at its end; None before.
    """

    info: SessionInfo

    def __init__(self, server: Server, on_lost: Callable[[Server], object], first: Sequence[InputTensor]) -> None:
        """Made by `AvatarClient.live`; waits for the server to start the session."""
        self.summary: LiveSummary | None = None
        self._server, self._on_lost = server, on_lost
        self._connection = connection = server.connection
        self._id: int | str = secrets.randbelow(2**63 - 1) + 1
        self._error: AvatarClientError | None = None
        self._lock = threading.Lock()  # requests are sent in order, and none after the end
        self._started = self._speech_ended = self._cancelled = self._stream_ended = False
        self._requests: queue.SimpleQueue[InferRequest | None] = queue.SimpleQueue()
        self._reader = ResponseReader(connection.stream(iter(self._requests.get, None)))
        self._order = EventOrder()
        self._samples = 0  # of the speech that was sent in this segment
        self._answers: deque[type[SegmentEnd] | type[Cleared]] = deque()  # that the server has to send
        self._is_resting, self._acknowledged = False, 0
        self._put(first, start=True)
        try:
            self.info = self._wait_for_start()
            self._id = self.info.sequence_id or self._id
            self._started = True
        except BaseException:
            self.cancel()
            raise

    def send(self, samples: Samples) -> None:
        """Send the next part of the speech, without waiting for its frames.

        Args:
            samples: mono at the session's `sample_rate`, at least 20 ms (320 samples at 16 kHz); FP32 [n] with full
                scale ±1, or INT16 [n]. A long part is sent in pieces.

        Raises:
            InvalidRequest: another type, or too few samples.
            AvatarClientError: the session has failed.
            RuntimeError: the session was ended.
        """
        self._send(speech(samples, self.info.sample_rate, may_be_short=False), [])

    def end_segment(self, samples: Samples | None = None) -> None:
        """End a part of the speech, such as an answer: its remaining frames follow, and then a `SegmentEnd`.

        The session goes on: the next speech is a new segment. Its frames are those of a session of its own.

        Args:
            samples: the last speech of the segment, as `send` takes it, but of any length.

        Raises:
            InvalidRequest, AvatarClientError, RuntimeError: as `send`.
        """
        self._send(speech(samples, self.info.sample_rate), [number(SEGMENT_END, 1)], SegmentEnd)

    def rest(self, frames: int | None = None) -> None:
        """Ask for frames of the face at rest: the mouth is closed, and a video goes on moving. Ends the segment.

        Args:
            frames: their number, at once; None for one after the other in real time, until the next call. A session
                that rests may be silent for any time.

        Raises:
            AvatarClientError, RuntimeError: as `send`.
        """
        count = UNTIL_NEXT_CALL if frames is None else frames
        self._send([], [number(REST, count)], SegmentEnd, rest=count)

    def clear(self, shown: int | None = None) -> None:
        """Drop all speech and all frames that the server has not sent yet. `Cleared` among the events is its answer.

        Args:
            shown: index of the last frame that was shown, after which the motion of a video goes on; None for the last
                frame that was sent.

        Raises:
            AvatarClientError, RuntimeError: as `send`.
        """
        self._send([], [number(CLEAR, -1 if shown is None else shown)], Cleared)

    def end(self, samples: Samples | None = None) -> None:
        """End the session: the remaining frames follow, and then `summary`. A second call does nothing.

        Args:
            samples: the last part of the speech, as `send` takes it, but of any length.

        Raises:
            InvalidRequest: they are of another type.
            AvatarClientError: the session has failed.
        """
        pieces = speech(samples, self.info.sample_rate)
        with self._lock:
            if not self._speech_ended:
                self._check_open()
                self._speech_ended = True
                *others, last = pieces or [NO_SPEECH]
                for piece in others:
                    self._put([piece])
                self._put([last], end=True)
                self._requests.put(None)

    def frames(self, *, block: bool = True) -> Iterator[Frame]:
        """Yield the frames that were received and, unless `block` is False, wait for more until the session ends.

        Raises:
            AvatarClientError: as `events`.
        """
        return (event for event in self.events(block=block) if isinstance(event, Frame))

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def events(self, *, block: bool = True) -> Iterator[LiveEvent]:
        """Yield frames in their order, and the ends of segments and the answers to `clear` between them.

        After a `Cleared`, no frame of the speech before it is yielded. Unless `block` is False, wait for more until the
        session ends.

        Raises:
            AvatarClientError: the session has failed; `Unavailable` also where something is due, and no response comes
                within the client's timeout.
        """
        while True:
            for event in self._order.take(everything=self._stream_ended):
                self._taken(event)
                yield event
            if self._stream_ended:
                return
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

    def _send(
        self,
        pieces: Sequence[InputTensor],
        control: Sequence[InputTensor],
        answer: type[SegmentEnd] | type[Cleared] | None = None,
        *,
        rest: int = 0,
    ) -> None:
        """Send pieces of speech, the last one with `control`."""
        with self._lock:
            self._check_open()
            # noted first: the answer may be read before this thread goes on
            if answer and (self._samples or not rest):  # a rest without speech before it ends no segment
                self._answers.append(answer)
            self._samples = 0 if control else self._samples + sum(piece.shape[0] for piece in pieces)
            self._is_resting = rest == UNTIL_NEXT_CALL
            *others, last = [[piece] for piece in pieces] or [[]]
            for inputs in (*others, [*last, *control]):
                self._put(inputs)

    def _put(self, inputs: Sequence[InputTensor], *, start: bool = False, end: bool = False) -> None:
        if not start and self.info.token:
            token = _messages.text_tensor(SESSION_TOKEN, self.info.token)
            inputs = (*inputs, token, number(RECEIVED, self._order.next - 1))
            self._acknowledged = self._order.next
        parameters: dict[str, bool | int | str] = {"sequence_id": self._id}
        parameters.update(sequence_start=start, sequence_end=end)
        self._requests.put(_messages.request(LIVE.name, inputs, parameters=parameters))

    def _taken(self, event: LiveEvent) -> None:
        """Note which answers came; while the session rests, tell the server now and then what was read."""
        if not isinstance(event, Frame):
            while type(event) in self._answers and self._answers.popleft() is not type(event):
                pass  # the end of a segment that was cleared
        elif self._is_resting and event.index > self._acknowledged + ACKNOWLEDGE_SECONDS * self.info.fps:
            with self._lock:
                if self._is_resting and not (self._speech_ended or self._cancelled):
                    self._put([])

    def _is_due(self) -> bool:
        """Return whether the server has to send something without another request."""
        complete = self._samples / self.info.sample_rate - self.info.latency  # seconds of the segment's frames
        expected = self._order.first + int(complete * self.info.fps)
        return self._speech_ended or self._is_resting or bool(self._answers) or self._order.next < expected

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
        events, summary = read_response(response)
        for event in events:
            self._order.add(event)
        self.summary = summary or self.summary
