"""One live session: the queue of its requests, the worker that answers them in order, and its mel stream."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Array, Floats, Image
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE
from lipsync.mel_stream import LATENCY, MelStream
from lipsync.tensors import RECEIVED

from ..errors import Busy, ClientError, InvalidField
from ..inference.bls_client import BlsInferenceClient
from ..settings import MIB, LiveSettings
from .live_access import SessionAccess, UnreadFrames
from .live_avatar import LiveAvatar
from .live_errors import NO_SESSION
from .live_speech import INPUTS, read_speech, sample_count
from .request import StreamRequest

logger = logging.getLogger("avatar")

MAX_QUEUED = 1024  # requests in a session's queue, 20 s of the shortest pieces
SAMPLES_AT_ONCE = SAMPLE_RATE  # of queued requests, worked on together; they make more frames than one generator batch
WINDOWS_AT_ONCE = 8  # windows that are generated before the first of their frames is sent


class PendingRequest:
    """A request in its session's queue; its caller waits until it is completed."""

    def __init__(self, request: StreamRequest) -> None:
        self.request, self.arrived = request, time.monotonic()
        self._done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def complete(self, error: Exception | None = None) -> None:
        """End the wait: all frames are sent, or the request failed with `error`. Again, it does nothing."""
        if not self._done.done():
            self._done.set_result(error)

    async def wait(self) -> None:
        """Wait for the end, and raise what the request failed with."""
        if error := await self._done:
            raise error


@dataclass(frozen=True)
class _Piece:
    """What one request adds to the session: the windows that it completes, or why it is rejected."""

    pending: PendingRequest
    windows: list[Floats]
    samples: int  # of the whole session, after this request
    error: Exception | None = None


Prepare = Callable[[StreamRequest, "LiveSession"], Awaitable[LiveAvatar]]


class LiveSession:
    """One caller's session. Its requests wait in a queue, and are answered from there in order.

    Attributes:
        id: names the session in log lines: the id of its first request.
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
    ) -> None:
        """Make a session that is not prepared yet.

        `on_finish` is called before its summary is sent, and `on_frame` for each frame, with the seconds that it is
        late: a player shows a frame when the speech for it has arrived, and the frame before it has had its time.
        """
        self.id, self.access = identity, access
        self.output = UnreadFrames()
        self.cause: StreamRequest | None = None
        self.is_in_table = self.is_contested = False
        self.size = 0
        self.in_flight = 0
        self.last_active = time.monotonic()
        self._models, self._settings, self._on_finish, self._on_frame = models, settings, on_finish, on_frame
        self._queue: asyncio.Queue[PendingRequest] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._reason: Exception = ClientError(NO_SESSION)  # why requests fail once the session is closed
        self._due = 0.0
        self._without_face = 0
        self._samples_received = 0

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
        if self._queue.qsize() >= MAX_QUEUED:
            self.close()
            raise Busy(
                f"{MAX_QUEUED} requests of this session are already queued; "
                "send speech no faster than it is spoken, or in larger pieces"
            )
        if not request.is_start:  # only the speech counts, and the request may wait for long
            request.inputs = {name: value for name, value in request.inputs.items() if name in INPUTS}
        self._samples_received += sample_count(request)
        if self._samples_received > self._settings.max_speech_seconds * SAMPLE_RATE:
            raise InvalidField("audio", self._settings.limits.too_long)
        pending = PendingRequest(request)
        self._queue.put_nowait(pending)  # before the first `await`: requests are queued in the order of their arrival
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
        if self._worker:
            self._worker.cancel()
            self._worker = None
        while not self._queue.empty():
            self._queue.get_nowait().complete(self._reason)

    async def _start(self, request: StreamRequest, prepare: Prepare) -> None:
        """Prepare the avatar in a task that `close` cancels: another START may take this session's place."""
        self._worker = preparing = asyncio.create_task(self._prepare(request, prepare))
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
        avatar = await prepare(request, self)
        height, width = avatar.images[0].shape[:2]
        info = {
            "fps": str(avatar.fps),
            "width": width,
            "height": height,
            "frames": len(avatar.images),
            "latency": LATENCY,
            "format": avatar.frame_format,
            "stand_ins": list(avatar.stand_ins),
        }
        logger.info("session started: %s", info, extra={"request_id": self.id})
        await request.send(session=json.dumps({**info, "token": self.access.token}))
        self._due = time.monotonic()  # of the next frame, at the earliest
        self._worker = asyncio.create_task(self._work(avatar, MelStream(float(avatar.fps))))

    async def _work(self, avatar: LiveAvatar, mel: MelStream) -> None:
        """Answer the queued requests, up to a second of speech at once, so that a session that lags can catch up."""
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty() and sum(sample_count(each.request) for each in batch) < SAMPLES_AT_ONCE:
                batch.append(self._queue.get_nowait())
            generation = batch[0].request.begin_stage("generation")
            try:
                with generation.current():
                    await self._answer(avatar, mel, batch)
            except Exception as error:
                for pending in batch:
                    pending.complete(error)
            finally:  # also where the session was closed meanwhile: no request may wait forever
                generation.end(requests=len(batch))
                for pending in batch:
                    pending.complete(self._reason)

    async def _answer(self, avatar: LiveAvatar, mel: MelStream, batch: list[PendingRequest]) -> None:
        first = mel.frames
        pieces = [await self._piece(avatar, mel, pending) for pending in batch]
        windows = [window for piece in pieces for window in piece.windows]
        async with aclosing(self._frames(avatar, first, windows)) as frames:
            index = first
            for piece in pieces:
                for _ in piece.windows:
                    outputs = await anext(frames)
                    await piece.pending.request.send(index=index, **outputs)
                    self.output.add(sum(array.nbytes for array in outputs.values()))
                    due = max(self._due, piece.pending.arrived)
                    self._on_frame(time.monotonic() - due)
                    self._due = due + float(1 / avatar.fps)
                    index += 1
                if piece.pending.request.is_end and piece.error is None:
                    await self._finish(piece, mel.frames)
                    return
                piece.pending.complete(piece.error)

    async def _piece(self, avatar: LiveAvatar, mel: MelStream, pending: PendingRequest) -> _Piece:
        try:
            windows = await asyncio.to_thread(self._windows, pending.request, avatar, mel)
        except (InvalidField, InvalidInput) as error:
            return _Piece(pending, [], mel.samples, error)
        return _Piece(pending, windows, mel.samples)

    def _windows(self, request: StreamRequest, avatar: LiveAvatar, mel: MelStream) -> list[Floats]:
        """Return the windows FP32 [80,16] that a request completes."""
        windows: list[Floats] = []
        speech = read_speech(request)
        if speech is not None:
            frames = speech.size / SAMPLE_RATE * float(avatar.fps)
            size = frames * avatar.images[0].nbytes
            if avatar.frame_format == "bgr" and size > self._settings.live_memory_mib * MIB:
                # Triton holds responses that the caller does not read, and never releases that memory.
                raise InvalidField("audio", "too many frames in one request; send shorter pieces, or use jpeg or mouth")
            windows += list(mel.feed(speech))
        if request.is_end:
            windows += list(mel.flush())
        return windows

    async def _frames(self, avatar: LiveAvatar, first: int, windows: list[Floats]) -> AsyncGenerator[dict[str, Array]]:
        """Yield the outputs of the frames from `first` on, one per window, a few generated at a time."""
        for start in range(0, len(windows), WINDOWS_AT_ONCE):
            part = windows[start : start + WINDOWS_AT_ONCE]
            images = [avatar.image_index(first + start + n) for n in range(len(part))]
            speaking = [n for n, image in enumerate(images) if avatar.boxes[image] is not None]
            mouths: dict[int, Image] = {}
            if speaking:
                crops = np.ascontiguousarray(avatar.crops[[images[n] for n in speaking]])
                mel = np.stack([part[n] for n in speaking])
                generated = await self._models.wav2lip(crops, mel, avatar.options.model)
                mouths = dict(zip(speaking, generated, strict=True))
            self._without_face += len(part) - len(speaking)
            for n, image in enumerate(images):
                yield await asyncio.to_thread(avatar.compose_frame, image, mouths.get(n))

    async def _finish(self, piece: _Piece, frames: int) -> None:
        summary = {
            "frames": frames,
            "duration": piece.samples / SAMPLE_RATE,
            "without_face": self._without_face,
        }
        logger.info("session ended: %s", summary, extra={"request_id": self.id})
        self._on_finish(self)  # first: a caller that gets the summary may start its next session at once
        await piece.pending.request.finish(summary=json.dumps(summary))
        piece.pending.complete()
        self.close()
