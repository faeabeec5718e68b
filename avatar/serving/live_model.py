"""Live sessions as a Triton model, `live`: a face once, then speech as it is spoken in, frames out.

A session is a sequence of requests of one id. Each is answered by the frames whose mel windows it completes; all that
a frame hears is in `lipsync.streaming`. Sessions share the nets with everybody, by BLS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from lipsync import tensors
from lipsync.arrays import Floats, Image
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_stream import LATENCY, MelStream
from lipsync.tensors import FACE_FILE, LIVE_SAMPLES, SEQUENCE_IDLE_SECONDS
from lipsync.triton.cpu import use_one_blas_thread
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from ..context import JobContext, RequestLogger
from ..errors import AvatarError, Busy, ClientError, InvalidField, TooLarge, Unavailable
from ..form.parse import parse
from ..inference.bls_client import BlsInferenceClient
from ..pipeline import tell
from ..request import Background
from ..resources.cache import open_cache
from ..settings import MIB, LiveSettings, load
from .live_avatar import FORMATS, LiveAvatar, compose_frame, prepare
from .render_model import open_workspace, write_form
from .runner import RequestRunner, StreamRequest, log_to_triton

logger = logging.getLogger("avatar")

WATCH_SECONDS = 1.0  # where many requests wait, to ask for each more often would cost more than it saves
MOST_WAITING = 1024  # requests in a session's line, 20 s of the shortest pieces
SAMPLES_AT_ONCE = SAMPLE_RATE  # of requests that wait, heard together; as frames more than are generated at once
AT_ONCE = 8  # windows that are generated before the first of their frames is sent
NO_SESSION = "there is no such session: it has ended, was silent for too long, or was never begun"


class Session:
    """One session. What was said in its requests waits in a line, and is taken from there in order."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.line: asyncio.Queue[PendingRequest] = asyncio.Queue()
        self.worker: asyncio.Task[None] | None = None
        self.size = 0  # bytes of its pictures
        self.without_face = 0
        self.come = 0  # samples that requests have brought
        self.last = time.monotonic()
        self.under_way = 0

    def end(self, why: Exception | None = None) -> None:
        """Nobody is answered any more; pictures and sound go with the worker. `why`: told to those in line."""
        if self.worker:
            self.worker.cancel()
            self.worker = None
        while not self.line.empty():
            self.line.get_nowait().complete(why or ClientError(NO_SESSION))


class PendingRequest:
    """One request in its session's line; whoever brought it waits until it is answered."""

    def __init__(self, call: StreamRequest) -> None:
        self.call = call
        self._done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def complete(self, error: Exception | None = None) -> None:
        """All frames are sent, or it failed."""
        if not self._done.done():
            self._done.set_result(error)

    async def wait(self) -> None:
        """Raises what it failed with."""
        if error := await self._done:
            raise error


class LiveModel:
    """Answers the requests of the model `live`, whose stub process it lives in."""

    def __init__(self, pb_utils: PbUtils, args: Mapping[str, str]) -> None:
        """`args`: what Triton hands to `initialize`. Raises BadSetting and OSError: the model does not load then."""
        log_to_triton(pb_utils, tensors.LIVE)
        self._settings = load(LiveSettings)
        use_one_blas_thread()
        mel_spectrogram(np.zeros(SAMPLE_RATE, np.float32))  # librosa imports and compiles at its first call
        self._sessions: dict[object, Session] = {}
        self._calls = RequestRunner(pb_utils, tensors.LIVE, WATCH_SECONDS)
        self._models = BlsInferenceClient(pb_utils, Path(args["model_repository"]).parent)
        self._workspace = self._calls.run(open_workspace(self._settings))
        self._cache = open_cache(self._settings.cache_dir, self._settings.cache_mib * MIB)
        self._sweeper = asyncio.run_coroutine_threadsafe(self._sweep(), self._calls.loop)

    def execute(self, requests: list[InferenceRequest]) -> None:
        """Begin with requests; those of one session are answered in their order."""
        self._calls.submit(requests, self._serve)

    def close(self) -> None:
        """End all sessions, and leave nothing."""
        self._sweeper.cancel()
        self._calls.close()
        self._sessions.clear()
        self._workspace.close()

    async def _serve(self, call: StreamRequest) -> None:
        session = self._session(call)
        if call.problem and (call.is_start or call.is_end):
            self._drop(session)
        call.check()
        if session.line.qsize() >= MOST_WAITING:
            self._drop(session)
            raise Busy(f"{MOST_WAITING} requests of this session wait already; send as it is spoken, or larger pieces")
        if not call.is_start:  # nothing else counts, and it may wait for long
            call.inputs = {name: value for name, value in call.inputs.items() if name in ("audio", "pcm")}
        session.come += _samples(call)
        if session.come > self._settings.max_speech_seconds * SAMPLE_RATE:
            if call.is_start or call.is_end:
                self._drop(session)
            raise InvalidField("audio", self._settings.limits.too_long)
        said = PendingRequest(call)
        session.line.put_nowait(said)  # before anything is waited for: requests stand in line as they came
        session.under_way += 1
        try:
            if call.is_start:
                await self._prepare(call, session)
            await said.wait()
        except (InvalidField, InvalidInput):
            if call.is_start or call.is_end:
                self._drop(session)
            raise
        except BaseException as error:  # the caller is gone, or something is broken: nobody can go on with it
            self._drop(session, error if isinstance(error, Unavailable) else None)
            raise
        finally:
            session.under_way -= 1
            session.last = time.monotonic()

    def _session(self, call: StreamRequest) -> Session:
        if not call.is_start:
            session = self._sessions.get(call.sequence)
            if session is None:
                raise ClientError(NO_SESSION)
            return session
        if old := self._sessions.pop(call.sequence, None):
            old.end()
        if len(self._sessions) >= self._settings.live_sessions:
            most = self._settings.live_sessions
            raise Busy(f"{most} live sessions are running, as many as may; try again later")
        session = self._sessions[call.sequence] = Session(call.id)
        return session

    async def _work(self, session: Session, face: LiveAvatar, mel: MelStream) -> None:
        """Answer what stands in line, a second of speech at once: so a session that lags behind catches up."""
        while True:
            waiting = [await session.line.get()]
            while not session.line.empty() and sum(_samples(said.call) for said in waiting) < SAMPLES_AT_ONCE:
                waiting.append(session.line.get_nowait())
            try:
                await self._answer(session, face, mel, waiting)
            except Exception as error:
                for said in waiting:
                    said.complete(error)
            finally:  # the session was ended meanwhile: nobody waits for ever
                for said in waiting:
                    said.complete(ClientError(NO_SESSION))

    async def _answer(self, session: Session, face: LiveAvatar, mel: MelStream, waiting: list[PendingRequest]) -> None:
        first = mel.frames
        heard: list[Floats] = []
        owners: list[PendingRequest] = []  # whose request completed each window
        spoken: list[int] = []
        refused: dict[PendingRequest, Exception] = {}
        for said in waiting:
            try:
                windows = await asyncio.to_thread(self._hear, said.call, face, mel)
            except (InvalidField, InvalidInput) as error:
                refused[said] = error
                windows = []
            heard += windows
            owners += [said] * len(windows)
            spoken.append(mel.samples)
        sent = 0
        async with aclosing(self._frames(session, face, first, heard)) as frames:
            for said, samples in zip(waiting, spoken, strict=True):
                while sent < len(owners) and owners[sent] is said:
                    await said.call.send(index=first + sent, **await anext(frames))
                    sent += 1
                if said.call.is_end and said not in refused:
                    await self._say_goodbye(session, said, mel, samples)
                    return
                said.complete(refused.get(said))

    def _hear(self, call: StreamRequest, face: LiveAvatar, mel: MelStream) -> list[Floats]:
        """The windows FP32 [80,16] that a request completes."""
        windows: list[Floats] = []
        speech = _speech(call)
        if speech is not None:
            frames = speech.size / SAMPLE_RATE * float(face.fps)
            if face.frame_format == "bgr" and frames * face.pictures[0].nbytes > self._settings.live_mib * MIB:
                # Triton keeps what a caller does not read, and never gives the memory back
                raise InvalidField("audio", "too many frames at once; send shorter pieces, or ask for jpeg or mouth")
            windows += list(mel.feed(speech))
        if call.is_end:
            windows += list(mel.flush())
        return windows

    async def _prepare(self, call: StreamRequest, session: Session) -> None:
        """`_begin`, which ends with the session: another START may take its place."""
        session.worker = preparing = asyncio.create_task(self._begin(call, session))
        try:
            await asyncio.wait((preparing,))
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
        try:
            if not preparing.cancelled():
                preparing.result()
        finally:
            del preparing  # see `Calls._attended`

    async def _begin(self, call: StreamRequest, session: Session) -> None:
        form = _format(call)
        async with self._workspace.folder() as folder:
            fields = await asyncio.to_thread(write_form, call, folder, self._settings.max_upload_bytes)
            asked = parse(fields, folder, call.id, self._settings.limits, live=True)
            if asked.background is Background.TRANSPARENT and asked.background_file is None:
                raise InvalidField(tensors.BACKGROUND, "a live session has no alpha channel: Transparent cannot be")
            job = JobContext(self._models, RequestLogger(call.id), asked.options, asked.limits, cache=self._cache)
            try:
                face = await prepare(asked, job, form, lambda size: self._make_room(session, size))
            except AvatarError as error:
                tell(error, job)
                raise
        height, width = face.pictures[0].shape[:2]
        about = {
            "fps": str(face.fps),
            "width": width,
            "height": height,
            "frames": len(face.pictures),
            "latency": LATENCY,
            "format": form,
            "stand_ins": list(face.stand_ins),
        }
        logger.info("session begun: %s", about, extra={"request_id": session.id})
        await call.send(session=json.dumps(about))
        session.worker = asyncio.create_task(self._work(session, face, MelStream(float(face.fps))))

    async def _frames(
        self, session: Session, face: LiveAvatar, first: int, windows: list[Floats]
    ) -> AsyncGenerator[dict[str, Any]]:
        """The outputs of the frames from `first` on, one a window; a few are generated at a time."""
        for start in range(0, len(windows), AT_ONCE):
            some = windows[start : start + AT_ONCE]
            numbers = [face.number(first + start + n) for n in range(len(some))]
            speaks = [n for n, number in enumerate(numbers) if face.boxes[number] is not None]
            mouths: dict[int, Image] = {}
            if speaks:
                shown = np.ascontiguousarray(face.crops[[numbers[n] for n in speaks]])
                heard = np.stack([some[n] for n in speaks])
                made = await self._models.wav2lip(shown, heard, face.options.model)
                mouths = dict(zip(speaks, made, strict=True))
            session.without_face += len(some) - len(speaks)
            for n, number in enumerate(numbers):
                yield await asyncio.to_thread(compose_frame, face, number, mouths.get(n))

    async def _say_goodbye(self, session: Session, said: PendingRequest, mel: MelStream, samples: int) -> None:
        about = {"frames": mel.frames, "duration": samples / SAMPLE_RATE, "without_face": session.without_face}
        logger.info("session over: %s", about, extra={"request_id": session.id})
        self._forget(session)  # first: who hears of the end may begin the next one
        await said.call.finish(summary=json.dumps(about))
        said.complete()
        session.end()

    def _make_room(self, session: Session, size: int) -> None:
        """Let a session have pictures of so many bytes. Raises TooLarge, or Busy where others have taken the room."""
        most = self._settings.live_mib * MIB
        if size > most:
            held = f"its frames are {size >> 20} MiB, {most >> 20} at most"
            raise TooLarge(f"{FACE_FILE}: too much for a live session: {held}; send fewer, or set max_height")
        if size + sum(other.size for other in self._sessions.values()) > most:
            raise Busy("the pictures of other live sessions leave no room for these; try again later")
        session.size = size

    def _drop(self, session: Session, why: Exception | None = None) -> None:
        self._forget(session)
        session.end(why)

    def _forget(self, session: Session) -> None:
        for sequence, there in tuple(self._sessions.items()):
            if there is session:
                del self._sessions[sequence]

    async def _sweep(self) -> None:
        """End sessions that have been silent for too long: their clients are gone."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for session in tuple(self._sessions.values()):
                if not session.under_way and now - session.last > SEQUENCE_IDLE_SECONDS:
                    about = {"request_id": session.id}
                    logger.info("session dropped: nothing came for %d s", SEQUENCE_IDLE_SECONDS, extra=about)
                    self._drop(session)


def _format(call: StreamRequest) -> str:
    form = call.texts().get("format", "").strip().lower() or FORMATS[0]
    if form not in FORMATS:
        raise InvalidField("format", f"{', '.join(FORMATS)} expected, got {form[:40]!a}")
    return form


def _samples(call: StreamRequest) -> int:
    return max(0 if (sent := call.array(name)) is None else sent.size for name in ("audio", "pcm"))


def _speech(call: StreamRequest) -> Floats | None:
    """What was said in this request, FP32 [n]; None where nothing was."""
    audio, pcm = call.array("audio"), call.array("pcm")
    if audio is not None and pcm is not None:
        raise InvalidField("pcm", "send audio or pcm, not both")
    name, samples = ("pcm", pcm) if audio is None else ("audio", audio)
    if samples is None or (samples.size == 0 and (call.is_start or call.is_end)):
        if samples is None and not (call.is_start or call.is_end):
            raise InvalidField("audio", "send audio or pcm")
        return None
    fewest, most = LIVE_SAMPLES
    if not call.is_end and samples.size < fewest:
        raise InvalidField(name, f"20 ms ({fewest} samples) at least, got {samples.size}")
    if samples.size > most:
        raise InvalidField(name, f"30 s ({most} samples) at most, got {samples.size}")
    return samples.astype(np.float32) / 32768 if name == "pcm" else samples
