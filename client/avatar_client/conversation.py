"""A conversation on an event loop: speech in, as fast as it is made; frames of the face with their sound out.

The voice never depends on the server: while it is lost, the speech goes on with the last image.

    async with await Conversation.start(client, "face.jpg", sample_rate=24_000) as conversation:
        await conversation.say(samples)
        conversation.end_segment()
        async for event in conversation:
            ...
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._client import AvatarClient
from ._conversation_events import ConversationFrame, Event, ServerBack, ServerLost, SpeechEnd, is_resting
from ._errors import AvatarClientError, InvalidRequest, ServerError, Unavailable
from ._events import Cleared, Frame, SegmentEnd, SessionInfo
from ._live import LiveSession
from ._live_inputs import mono
from ._options import File, LiveOptions
from ._session_thread import SessionThread
from ._speech_sender import SpeechSender
from ._still_session import ConversationSession, StillSession

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = [
    "Conversation",
    "ConversationFrame",
    "Event",
    "ServerBack",
    "ServerLost",
    "SpeechEnd",
    "is_resting",
    "mono",
]

MAX_WAITING = 60.0  # seconds of speech that wait here; beyond them `say` waits
PAUSE = 0.6  # seconds without speech after which a segment is flushed, and the face rests
MAX_RESTING = 2  # frames at rest that wait to be taken; later ones replace them, so that speech never waits for them
STALLED = 10.0  # seconds without any response: a session that rests gets a frame every 40 ms
FIRST_RETRY, LAST_RETRY = 0.5, 3.0  # seconds until another session is tried, doubled each time
CONNECT_SECONDS = 5.0  # that another session waits for a server
TICK = 0.1  # seconds between two looks at pauses and stalls


class Conversation:
    """A live session that is never idle, is interrupted at once, and is replaced when its server is lost.

    Use all of it on one event loop. One consumer iterates over it, as fast as frames are shown: what it takes says how
    far the viewer is.

    Attributes:
        sample_rate: Hz, of the speech in and of the sound out.
        info: what the server said of the session.
    """

    info: SessionInfo

    def __init__(self, connect: Callable[[], LiveSession], sample_rate: int) -> None:
        """Made by `start`. `connect` starts a session in a thread, with the format `bgr`, and with `echo`."""
        self.sample_rate = sample_rate
        self._connect, self._loop = connect, asyncio.get_running_loop()
        self._events = deque[Event]()
        self._sender = SpeechSender(sample_rate, lambda: self._emit(SpeechEnd()))
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._image: NDArray[np.uint8] | None = None
        self._last_shown: int | None = None  # index in the session
        self._is_closed = False
        self._clearing = self._turn = 0
        self._said_at = self._event_at = self._loop.time()
        self._retry = FIRST_RETRY
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._thread: SessionThread | None = SessionThread(connect, self)
        self._timer = self._loop.call_later(TICK, self._tick)

    @classmethod
    async def start(
        cls,
        client: AvatarClient,
        face: File | None = None,
        /,
        *,
        sample_rate: int = 24_000,
        avatar: str | None = None,
        **chosen: Unpack[LiveOptions],
    ) -> Conversation:
        """Start a conversation, and wait for the first frame.

        Args:
            client: of one server or several: a session that is lost starts again on one that is there.
            face: an image or a short video, its bytes or its path; with `avatar` it may be None.
            sample_rate: Hz of the speech, 8000 to 48000.
            avatar: the id of a prepared avatar.
            chosen: options of `AvatarClient.live`, except `format`.

        Raises:
            ValueError, TypeError: an option that a conversation cannot have.
            OSError: a file cannot be read.
            AvatarClientError: the session did not start.
        """
        if chosen.get("format", "bgr") != "bgr":
            raise ValueError("format: a conversation takes images, so only bgr is allowed; leave it out")
        options: LiveOptions = {**chosen, "format": "bgr"}
        known, has_started = avatar, False

        def connect() -> LiveSession:
            nonlocal known, has_started  # a later session starts at once, where the server still has the avatar
            if has_started:
                client.wait_for_server(CONNECT_SECONDS)
            session = client.live(face, sample_rate=sample_rate, echo=True, avatar=known, **options)
            known, has_started = session.info.avatar or avatar, True
            return session

        conversation = cls(connect, sample_rate)
        try:
            await conversation.ready()
        except BaseException:
            conversation.close()
            raise
        return conversation

    async def ready(self) -> None:
        """Wait for the first frame. Raises AvatarClientError where the session did not start."""
        await self._ready

    async def say(self, samples: NDArray[np.int16]) -> None:
        """Add speech. It waits while a minute of speech waits already; an interruption meanwhile drops the samples.

        Raises:
            ValueError: other samples than INT16 [n].
        """
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise ValueError(f"say: INT16 samples [n] expected, got {samples.dtype} {list(samples.shape)}")
        turn = self._turn
        while self._sender.tape.waiting > MAX_WAITING * self.sample_rate and not self._is_closed:
            self._room.clear()
            await self._room.wait()
        if turn == self._turn and not self._is_closed:
            self._sender.tape.add(samples)
            self._said_at = self._loop.time()
            self._send()

    def end_segment(self) -> None:
        """End the segment: its last frames and `SpeechEnd` follow, and then frames at rest until more is said."""
        if not self._is_closed:
            self._sender.tape.end_segment()
            self._send()

    def interrupt(self) -> None:
        """Drop all speech that was not taken yet. No frame of it is yielded after this call."""
        self._turn += 1
        self._room.set()
        if not self.is_speaking or not self._sender.session:
            return
        self._events = deque(each for each in self._events if isinstance(each, (ServerLost, ServerBack)))
        self._clearing += 1
        self._sender.clear(self._last_shown)
        self._send()

    @property
    def position(self) -> int:
        """The number of samples that were said; `ConversationFrame.position` says how many of them came out."""
        return self._sender.tape.said

    @property
    def is_speaking(self) -> bool:
        """Whether speech was said that was not taken yet, or a segment has not ended."""
        return self._sender.tape.is_pending or any(
            isinstance(each, SpeechEnd) or (isinstance(each, ConversationFrame) and each.sound is not None)
            for each in self._events
        )

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; at the end of the conversation there is none."""
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event = self._events.popleft()
        if isinstance(event, ConversationFrame):
            self._last_shown, self._sender.shown = event.index, event.position
            self._send()
        return event

    def close(self) -> None:
        """End the session at once, and the iteration after what was received. Again, it does nothing."""
        self._is_closed = True
        self._timer.cancel()
        if self._thread:
            self._thread.cancel()
        self._thread = self._sender.session = None
        if not self._ready.done():
            self._ready.cancel()
        self._changed.set()
        self._room.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what the thread of the session reports

    def session_started(self, session: LiveSession) -> None:
        """Use a new session."""
        is_new = not hasattr(self, "info")
        self.info, self._event_at = session.info, self._loop.time()
        self._replace(session)
        if not is_new:
            self._emit(ServerBack(session.info))

    def session_event(self, event: object) -> None:
        """Take what the session yields."""
        self._event_at, self._retry = self._loop.time(), FIRST_RETRY
        self._take(event)

    def _take(self, event: object) -> None:
        """Take an event, except the frames of speech that was cleared."""
        if isinstance(event, Cleared):
            self._clearing = max(self._clearing - 1, 0)
        elif self._clearing:
            pass
        elif isinstance(event, Frame):
            self._take_frame(event)
        elif isinstance(event, SegmentEnd) and event.last >= event.first:  # others had no speech
            self._sender.segment_received()

    def session_ended(self, error: Exception) -> None:
        """Go on with the last image, and start another session a little later."""
        if not self._ready.done():
            self._ready.set_exception(error)
            return
        self._thread = None
        was_lost = isinstance(self._sender.session, StillSession)
        # an invalid start stays invalid; an invalid request of another kind ends its session only
        is_final = was_lost and isinstance(error, InvalidRequest)
        if not was_lost or is_final:
            reason = error if isinstance(error, AvatarClientError) else ServerError(f"the session failed: {error!r}")
            self._emit(ServerLost(reason, is_final))
        if not was_lost and self._image is not None:
            self._replace(StillSession(self._image, self.info.fps, self.sample_rate, self._take))
        if not is_final:
            self._loop.call_later(self._retry, self._reconnect)
            self._retry = min(2 * self._retry, LAST_RETRY)

    def _reconnect(self) -> None:
        if not self._is_closed:
            self._thread = SessionThread(self._connect, self)

    def _replace(self, session: ConversationSession) -> None:
        """Give a session all speech whose frames were not received."""
        self._clearing, self._last_shown = 0, None
        self._sender.use(session)

    def _take_frame(self, frame: Frame) -> None:
        if frame.image is None:
            return
        self._image = frame.image
        if not self._ready.done():
            self._ready.set_result(None)
        if frame.sound is None or frame.sound_time is None or frame.sound_time < 0:
            waiting = list(self._events)[-MAX_RESTING:]
            if len(waiting) == MAX_RESTING and all(is_resting(each) for each in waiting):
                del self._events[-MAX_RESTING]
            self._emit(ConversationFrame(frame.index, frame.image, None, self._shown_last()))
            return
        position = self._sender.received(frame.sound, frame.sound_time)
        self._emit(ConversationFrame(frame.index, frame.image, frame.sound, position))

    def _shown_last(self) -> int:
        """Return the position of the last frame that waits or was taken."""
        frames = (each.position for each in reversed(self._events) if isinstance(each, ConversationFrame))
        return next(frames, self._sender.shown)

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._changed.set()

    def _send(self) -> None:
        self._sender.send()
        if self._sender.tape.waiting <= MAX_WAITING * self.sample_rate:
            self._room.set()

    def _tick(self) -> None:
        """Flush a segment in a pause of the speech, and give up a session that does not respond."""
        self._timer = self._loop.call_later(TICK, self._tick)
        now = self._loop.time()
        if self._sender.tape.is_open and not self._sender.tape.waiting and now - self._said_at > PAUSE:
            self._sender.tape.end_segment(is_reported=False)
            self._send()
        is_started = self._sender.session is not None and not isinstance(self._sender.session, StillSession)
        if self._thread and is_started and now - self._event_at > STALLED:
            self._thread.cancel()
            self.session_ended(Unavailable(f"no response for {STALLED:g} s; the live session is given up"))
