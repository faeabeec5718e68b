"""One live session: who may use it, the queue of its requests, and what ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lipsync.tensors import CLEAR, RECEIVED

from ..errors import Busy, ClientError, InvalidField
from ..inference.bls_client import BlsInferenceClient
from ..settings import LiveSettings
from .live_access import SessionAccess, UnreadFrames
from .live_avatar import LiveAvatar
from .live_errors import NO_SESSION
from .live_frames import FrameMaker
from .live_requests import PendingRequest, RequestQueue, SessionSettings, is_acknowledgment
from .live_worker import SessionWorker
from .request import StreamRequest

logger = logging.getLogger("avatar")

MAX_QUEUED = 1024  # requests in a session's queue, 20 s of the shortest pieces


@dataclass(frozen=True)
class SessionAvatar:
    """What a session's first request has prepared; `id` is empty where the avatar is not kept for later sessions."""

    avatar: LiveAvatar
    id: str


Prepare = Callable[[StreamRequest, "LiveSession"], Awaitable[SessionAvatar]]


class LiveSession:
    """One caller's session. Its requests wait in a queue, and are answered from there in order.

    Attributes:
        id: names the session in log lines: the id of its first request.
        sequence_id: the id of its sequence, if the server has chosen it; otherwise empty.
        access: who may use it.
        output: what was sent, and how much of it the caller has acknowledged.
        size: bytes that its avatar takes in memory.
        in_flight: requests that are not completed yet.
        last_active: the time of its last request's end, by `time.monotonic`.
        cause: the request whose error has ended the session, if one has.
        is_in_table: whether its sequence is in Triton's table; not after its last request.
        is_contested: whether another caller has tried to start a session under the same sequence id.
    """

    def __init__(
        self,
        identity: str,
        access: SessionAccess,
        models: BlsInferenceClient,
        settings: LiveSettings,
        on_finish: Callable[[LiveSession], None],
        on_frame: Callable[[float], None],
        sequence_id: str = "",
    ) -> None:
        """Make a session that is not prepared yet.

        `on_finish` is called before its summary is sent, and `on_frame` for each frame, with the seconds that it is
        late: a player shows a frame when the speech for it has arrived, and the frame before it has had its time.
        """
        self.id, self.access, self.sequence_id = identity, access, sequence_id
        self.output = UnreadFrames()
        self.cause: StreamRequest | None = None
        self.is_in_table = self.is_contested = False
        self.size = 0
        self.in_flight = 0
        self.last_active = time.monotonic()
        self._models, self._settings, self._on_finish, self._on_frame = models, settings, on_finish, on_frame
        self._chosen = SessionSettings()
        self._queue = RequestQueue()
        self._task: asyncio.Task[None] | None = None  # prepares the avatar, then runs the worker
        self._worker: SessionWorker | None = None
        self._reason: Exception = ClientError(NO_SESSION)  # why requests fail once the session is closed
        self._samples_received = 0  # of the current segment

    async def push(self, request: StreamRequest, prepare: Prepare | None = None) -> None:
        """Queue a request, and wait until all of its frames are sent.

        Args:
            request: the session's next one.
            prepare: for the session's first request, how its avatar is prepared.

        Raises:
            InvalidField, InvalidInput: the request is invalid; the session itself can go on.
            Busy: too many requests are queued; the session is closed.
            Exception: whatever it failed with; nothing can follow it.
        """
        request.check()
        received = request.array(RECEIVED)
        if received is not None:
            self.output.acknowledge(int(received[0]))
        if is_acknowledgment(request):
            self.last_active = time.monotonic()
            return
        pending = self._queued(request)  # before the first `await`: requests are queued in the order of their arrival
        self.in_flight += 1
        try:
            if prepare:
                await self._start(request, prepare)
            await pending.wait()
        finally:
            self.in_flight -= 1
            self.last_active = time.monotonic()

    def close(self, reason: Exception | None = None) -> None:
        """Stop the work and release the avatar. Requests that are not completed fail with `reason`, or NO_SESSION."""
        self._reason = reason or self._reason
        if self._task:
            self._task.cancel()
            self._task = None
        for pending in self._unanswered():
            pending.complete(self._reason)
        self._worker = None

    def _queued(self, request: StreamRequest) -> PendingRequest:
        """Put a request into the queue, and drop what the requests before it ask for if it clears."""
        if len(self._queue) >= (2 * MAX_QUEUED if CLEAR in request.inputs else MAX_QUEUED):  # `clear` may help
            self.close()
            raise Busy(
                f"{MAX_QUEUED} requests of this session are already queued; "
                "send speech no faster than it is spoken, or in larger pieces"
            )
        if request.is_start:
            self._chosen = SessionSettings.of(request)
        pending = PendingRequest(request, self._chosen.rate)
        clears = pending.controls.clear is not None
        if clears:
            self._check_clear(pending)
        received = pending.samples + (0 if clears else self._samples_received)
        if received > self._settings.max_speech_seconds * self._chosen.rate:
            raise InvalidField("audio", self._settings.limits.too_long)
        self._samples_received = 0 if pending.ends_segment else received
        if clears:
            dropped = self._unanswered()
            pending.skipped = sum(each.drop() for each in dropped)
            self._queue.extend(dropped)
        self._queue.extend([pending])
        return pending

    def _check_clear(self, pending: PendingRequest) -> None:
        """Raise what is wrong with a request that clears: that does not wait for its turn."""
        if pending.error:
            raise pending.error
        last, shown = self._worker.last_sent if self._worker else -1, pending.controls.clear
        if shown is not None and shown > last:
            reason = f"the index of a frame that was sent, or -1, expected, got {shown}; the last one is {last}"
            raise InvalidField(CLEAR, reason)

    def _unanswered(self) -> list[PendingRequest]:
        """Stop the work on the requests, and remove and return them all in their order."""
        return [*(self._worker.abandon() if self._worker else []), *self._queue.drain()]

    async def _start(self, request: StreamRequest, prepare: Prepare) -> None:
        """Prepare the avatar in a task that `close` cancels: another START may take this session's place."""
        self._task = preparing = asyncio.create_task(self._prepare(request, prepare))
        try:
            await asyncio.wait((preparing,))
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        try:
            if not preparing.cancelled():
                preparing.result()
        finally:
            del preparing  # see `RequestRunner._until_cancelled`

    async def _prepare(self, request: StreamRequest, prepare: Prepare) -> None:
        prepared = await prepare(request, self)
        avatar, chosen = prepared.avatar, self._chosen
        height, width = avatar.images[0].shape[:2]
        maker = FrameMaker(avatar, chosen.frame_format, self._models)
        worker = SessionWorker(self._queue, maker, chosen, self._settings, self.output, self._on_frame)
        info = {
            "fps": str(avatar.fps),
            "width": width,
            "height": height,
            "frames": len(avatar.images),
            "latency": worker.latency,
            "format": chosen.frame_format,
            "stand_ins": list(avatar.stand_ins),
            "sample_rate": chosen.rate,
        }
        logger.info("session started: %s", info, extra={"request_id": self.id})
        secrets = {"token": self.access.token, "avatar": prepared.id}
        if self.sequence_id:
            secrets["sequence_id"] = self.sequence_id
        await request.send(session=json.dumps({**info, **secrets}))
        worker.start_clock()
        self._worker = worker
        self._task = asyncio.create_task(self._work(worker))

    async def _work(self, worker: SessionWorker) -> None:
        last, summary = await worker.run()
        logger.info("session ended: %s", summary, extra={"request_id": self.id})
        self._on_finish(self)  # first: a caller that gets the summary may start its next session at once
        try:
            await last.request.finish(summary=json.dumps(summary))
        finally:
            last.complete()
            self.close()
