"""The worker of a live session: plans, makes and sends the frames that its queued requests ask for, in their order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.tensors import REST

from ..errors import InvalidField
from ..settings import MIB, LiveSettings
from .live_access import UnreadFrames
from .live_frames import FrameMaker, Outputs
from .live_requests import PendingRequest, RequestQueue, SessionSettings
from .live_speech import SpeechStream, as_pcm, speech_latency
from .live_timeline import Clock, PlannedFrame, Timeline

SECONDS_AT_ONCE = 1  # of queued speech, worked on together; they make more frames than one generator batch
MAX_REST_SECONDS = 30  # of frames at rest that are sent at once
MAX_LAG_SECONDS = 1.0  # of frames at rest; those of a longer time are left out, and the clock is put back

Summary = dict[str, int | float]


@dataclass(frozen=True)
class _Plan:
    """What one request adds to the session, or why it is rejected."""

    pending: PendingRequest
    frames: list[PlannedFrame] = field(default_factory=list)
    segment: str = ""  # the response about a segment that has ended
    segment_frames: int = 0  # the number of frames that it follows
    error: Exception | None = None


class SessionWorker:
    """Answers the requests of one session, whose avatar is prepared.

    Attributes:
        latency: seconds of speech after a frame's own moment without which it cannot be made.
    """

    def __init__(
        self,
        queue: RequestQueue,
        maker: FrameMaker,
        chosen: SessionSettings,
        settings: LiveSettings,
        output: UnreadFrames,
        on_frame: Callable[[float], None],
    ) -> None:
        """Make a worker for the requests in `queue`; `on_frame` is called with the seconds that each frame is late."""
        self._queue, self._maker, self._chosen, self._settings = queue, maker, chosen, settings
        self._output, self._on_frame = output, on_frame
        fps = maker.avatar.fps
        self.latency = max(speech_latency(chosen.rate), float(1 / fps) if chosen.echo else 0.0)
        self._timeline = Timeline(fps, chosen.rate, echo=chosen.echo)
        self._clock = Clock(fps, self.latency, time.monotonic())
        self._stream: SpeechStream | None = None  # of the segment
        self._batch: list[PendingRequest] = []  # requests that are being answered
        self._answering: asyncio.Task[PendingRequest | None] | None = None
        self._sending: asyncio.Task[None] | None = None  # the newest response; nothing interrupts it

    @property
    def last_sent(self) -> int:
        """Index of the last frame that was sent; -1 for none."""
        return self._timeline.sent - 1

    def start_clock(self) -> None:
        """Let the first frame be due now."""
        self._clock.restart(0, time.monotonic())

    def abandon(self) -> list[PendingRequest]:
        """Stop the work on the requests that are being answered, and return them. A response on its way is sent."""
        batch, self._batch = self._batch, []
        if self._answering:
            self._answering.cancel()
        return batch

    async def run(self) -> tuple[PendingRequest, Summary]:
        """Answer requests until the last one of the session; return it, with the summary that is its last response."""
        while True:
            # up to a second of speech at once, so that a session that lags can catch up
            self._batch = batch = await self._queue.take(SECONDS_AT_ONCE * self._chosen.rate)
            generation = batch[0].request.begin_stage("generation")
            with generation.current():
                self._answering = answering = asyncio.create_task(self._answer(batch))
            try:
                await asyncio.wait((answering,))
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
                generation.end(requests=len(batch))
            if answering.cancelled():
                continue
            if error := answering.exception():
                for pending in self._batch:
                    pending.complete(error if isinstance(error, Exception) else None)
            elif last := answering.result():
                return last, self._summary()

    def _summary(self) -> Summary:
        line = self._timeline
        return {
            "frames": line.sent,
            "duration": line.duration,
            "without_face": self._maker.without_face,
            "segments": line.segments,
            "dropped": line.dropped / self._chosen.rate,
        }

    async def _answer(self, batch: list[PendingRequest]) -> PendingRequest | None:
        """Send all responses to the requests, and return the one that ends the session, if one does."""
        if self._sending:  # of work that was abandoned
            await asyncio.wait((self._sending,))
        for pending in batch:
            if pending.controls.clear is not None:
                await self._send(self._clear(pending, pending.controls.clear))
        plans = [await self._plan(pending) for pending in batch]
        frames = [frame for plan in plans for frame in plan.frames]
        async with aclosing(self._maker.outputs(frames)) as outputs:
            for plan in plans:
                pending = plan.pending
                for number, frame in enumerate(plan.frames):
                    await self._send_segment(plan, number)
                    await self._send(self._frame(pending, frame, await anext(outputs)))
                await self._send_segment(plan, len(plan.frames))
                if pending.rests and not plan.error:
                    await self._rest(pending)
                if pending.request.is_end and not plan.error:
                    return pending
                pending.complete(plan.error)
        return None

    async def _plan(self, pending: PendingRequest) -> _Plan:
        try:
            if pending.error:
                raise pending.error
            self._check_size(pending)
            return await self._planned(pending)
        except (InvalidField, InvalidInput) as error:
            return _Plan(pending, error=error.with_traceback(None))

    async def _planned(self, pending: PendingRequest) -> _Plan:
        line, controls, fps = self._timeline, pending.controls, float(self._maker.avatar.fps)
        frames: list[PlannedFrame] = []
        # a session without any speech has one frame, too
        is_empty = pending.request.is_end and not (line.next or line.is_speaking or pending.samples)
        if pending.speech is not None or is_empty:
            speech = np.zeros(0, np.float32) if pending.speech is None else pending.speech
            if not line.is_speaking or self._stream is None:
                self._stream = SpeechStream(fps, self._chosen.rate)
            line.receive(speech.size, as_pcm(speech) if self._chosen.echo else None)
            pending.is_received = True
            frames += line.add(await asyncio.to_thread(self._stream.feed, speech))
        if not pending.ends_segment:
            return _Plan(pending, frames)
        has_spoken = line.is_speaking and self._stream is not None
        if has_spoken and self._stream:
            frames += line.end_segment(await asyncio.to_thread(self._stream.end))
            self._stream = None
        segment, segment_frames = "", len(frames)
        if has_spoken or controls.ends_segment:
            info = line.close_segment()
            segment = json.dumps(asdict(info)) if controls.ends_segment or controls.rest else ""
        frames += [line.rest() for _ in range(controls.rest)]
        return _Plan(pending, frames, segment, segment_frames)

    def _check_size(self, pending: PendingRequest) -> None:
        """Raise InvalidField for a request with too many frames.

        Triton holds responses that the caller does not read, and never releases that memory.
        """
        avatar, rest = self._maker.avatar, max(0, pending.controls.rest)
        if rest > (most := int(MAX_REST_SECONDS * avatar.fps)):
            raise InvalidField(
                REST, f"1 to {most} frames, or -1 for frames until the next request, expected, got {rest}"
            )
        size = (pending.samples / self._chosen.rate * float(avatar.fps) + rest) * avatar.images[0].nbytes
        if self._maker.frame_format == "bgr" and size > self._settings.live_memory_mib * MIB:
            field_ = REST if rest else "audio"
            raise InvalidField(field_, "too many frames in one request; send shorter pieces, or use jpeg or mouth")

    def _clear(self, pending: PendingRequest, shown: int) -> Coroutine[object, object, None]:
        """Clear the timeline; the result sends the answer."""
        cleared = self._timeline.clear(shown, pending.skipped)
        pending.controls = replace(pending.controls, clear=None)
        self._clock.restart(cleared.next, time.monotonic())
        return pending.request.send(cleared=json.dumps(asdict(cleared)))

    async def _rest(self, pending: PendingRequest) -> None:
        """Send frames at rest in real time until there is another request."""
        line, clock = self._timeline, self._clock
        clock.reach(line.next, pending.arrived)
        while not await self._queue.ends_rest(clock.due(line.next)):
            if (now := time.monotonic()) > clock.due(line.next) + self.latency + MAX_LAG_SECONDS:
                clock.reach(line.next, now)
            frame = line.rest()
            await self._send(self._frame(pending, frame, await self._maker.one(frame)))

    async def _send_segment(self, plan: _Plan, number: int) -> None:
        """Send the response about a segment if it comes after this number of the request's frames."""
        if plan.segment and number == plan.segment_frames:
            await self._send(plan.pending.request.send(segment=plan.segment))

    async def _frame(self, pending: PendingRequest, frame: PlannedFrame, outputs: Outputs) -> None:
        sound: dict[str, Array | float] = {}
        size = sum(array.nbytes for array in outputs.values())
        if frame.sound is not None:
            sound = {"sound": frame.sound, "sound_time": frame.sound_time}
            size += frame.sound.nbytes
        # counted first: a caller can answer to a frame before this coroutine goes on
        self._timeline.mark_sent(frame)
        self._output.add(size)
        await pending.request.send(index=frame.index, **outputs, **sound)
        self._on_frame(time.monotonic() - self._clock.reach(frame.index, pending.arrived))

    async def _send(self, sending: Coroutine[object, object, None]) -> None:
        """Send a response; where the work is abandoned meanwhile, it is sent nevertheless, and counts as sent."""
        self._sending = task = asyncio.create_task(sending)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)
