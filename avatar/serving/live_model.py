"""Live sessions as the Triton model `live`: a face once, then speech while it is spoken in, frames out.

A session is a sequence of requests with one id. Each is answered by the frames whose mel windows it completes;
`lipsync.mel_stream` says which speech a frame needs. Sessions share the networks with all other callers, by BLS.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.tensors import FACE_FILE, SEQUENCE_IDLE_SECONDS
from lipsync.triton.cpu import use_one_blas_thread
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from ..context import JobContext, RequestLogger, log_failure
from ..errors import AvatarError, Busy, ClientError, InvalidField, TooLarge, Unavailable
from ..form.parse import parse
from ..inference.bls_client import BlsInferenceClient
from ..request import Background
from ..resources.cache import open_cache
from ..resources.workspace import Workspace
from ..settings import MIB, LiveSettings, load, warn_of_old_names
from .inputs import open_workspace, write_form
from .live_avatar import FORMATS, LiveAvatar, prepare
from .live_session import NO_SESSION, LiveSession
from .request import StreamRequest
from .runner import RequestRunner
from .triton_log import log_to_triton

logger = logging.getLogger("avatar")

CANCEL_POLL_SECONDS = 1.0  # where many requests wait, checking each of them more often would cost more than it saves


class LiveModel:
    """Answers the requests of the model `live`, in the model's own process: admits sessions and limits their memory."""

    def __init__(self, pb_utils: PbUtils, args: Mapping[str, str]) -> None:
        """Start the model; `args` is what Triton passes to `initialize`.

        Raises:
            BadSetting, OSError: Triton then does not load the model.
        """
        log_to_triton(pb_utils, tensors.LIVE)
        self._settings = load(LiveSettings)
        warn_of_old_names(LiveSettings, logger)
        mel_spectrogram(np.zeros(SAMPLE_RATE, np.float32))  # librosa is imported and compiles in its first call
        use_one_blas_thread()  # after it, because it limits the libraries that are loaded
        self._sessions: dict[int | str, LiveSession] = {}
        self._runner = RequestRunner(pb_utils, tensors.LIVE, CANCEL_POLL_SECONDS)
        self._models = BlsInferenceClient(pb_utils, Path(args["model_repository"]).parent)
        self._workspace: Workspace = self._runner.run(open_workspace(self._settings))
        self._cache = open_cache(self._settings.cache_dir, self._settings.cache_mib * MIB)
        self._sweeper = asyncio.run_coroutine_threadsafe(self._sweep(), self._runner.loop)

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        """Start the work on the requests; those of one session are answered in their order."""
        self._runner.submit(requests, self._serve)

    def close(self) -> None:
        """End all sessions and remove all files."""
        self._sweeper.cancel()
        self._runner.close()
        self._sessions.clear()
        self._workspace.close()

    async def _serve(self, request: StreamRequest) -> None:
        session = self._admit(request) if request.is_start else self._find(request)
        try:
            await session.push(request, self._prepare if request.is_start else None)
        except (InvalidField, InvalidInput):
            if request.is_start or request.is_end:
                self._drop(session)
            raise
        except BaseException as error:  # the caller disconnected, or something is broken: nothing can follow
            self._drop(session, error if isinstance(error, Unavailable) else None)
            raise

    def _find(self, request: StreamRequest) -> LiveSession:
        session = self._sessions.get(request.sequence)
        if session is None:
            raise ClientError(NO_SESSION)
        return session

    def _admit(self, request: StreamRequest) -> LiveSession:
        """Make a session; one with the same id is closed. Raises Busy at the limit of sessions."""
        if old := self._sessions.pop(request.sequence, None):
            old.close()
        if len(self._sessions) >= self._settings.live_sessions:
            raise Busy(f"limit of {self._settings.live_sessions} live sessions reached; try again later")
        session = LiveSession(request.id, self._models, self._settings, self._forget)
        self._sessions[request.sequence] = session
        return session

    async def _prepare(self, request: StreamRequest, session: LiveSession) -> LiveAvatar:
        """Prepare the avatar that a session's first request describes."""
        frame_format = _format(request)
        async with self._workspace.folder() as folder:
            form = await asyncio.to_thread(write_form, request, folder, self._settings.max_upload_bytes)
            avatar_request = parse(form, folder, request.id, self._settings.limits, live=True)
            if avatar_request.background is Background.TRANSPARENT and avatar_request.background_file is None:
                reason = "Transparent is not supported in live sessions; choose a color"
                raise InvalidField(tensors.BACKGROUND, reason)
            log = RequestLogger(request.id)
            job = JobContext(self._models, log, avatar_request.options, avatar_request.limits, cache=self._cache)
            try:
                return await prepare(avatar_request, job, frame_format, lambda size: self._reserve(session, size))
            except AvatarError as error:
                log_failure(error, job.log)
                raise

    def _reserve(self, session: LiveSession, size: int) -> None:
        """Reserve memory for a session's avatar.

        Raises:
            TooLarge: more than all sessions together may have.
            Busy: other sessions have reserved too much of it.
        """
        budget = self._settings.live_memory_mib * MIB
        if size > budget:
            sizes = f"its frames take {size >> 20} MiB, at most {budget >> 20} are allowed"
            raise TooLarge(f"{FACE_FILE}: too large for a live session: {sizes}; send fewer frames, or set max_height")
        if size + sum(other.size for other in self._sessions.values()) > budget:
            raise Busy("other live sessions take the memory that this avatar needs; try again later")
        session.size = size

    def _drop(self, session: LiveSession, reason: Exception | None = None) -> None:
        self._forget(session)
        session.close(reason)

    def _forget(self, session: LiveSession) -> None:
        for sequence, known in tuple(self._sessions.items()):
            if known is session:
                del self._sessions[sequence]

    async def _sweep(self) -> None:
        """Close sessions that have been idle for too long: their clients are gone."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for session in tuple(self._sessions.values()):
                if not session.in_flight and now - session.last_active > SEQUENCE_IDLE_SECONDS:
                    extra = {"request_id": session.id}
                    logger.info("session closed: no request for %d s", SEQUENCE_IDLE_SECONDS, extra=extra)
                    self._drop(session)


def _format(request: StreamRequest) -> str:
    frame_format = request.texts().get("format", "").strip().lower() or FORMATS[0]
    if frame_format not in FORMATS:
        raise InvalidField("format", f"one of {', '.join(FORMATS)} expected, got {frame_format[:40]!a}")
    return frame_format
