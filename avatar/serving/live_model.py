"""Live sessions as the Triton model `live`: a face once, then speech while it is spoken in, frames out.

A session is a sequence of requests with one id. Each is answered by the frames whose mel windows it completes;
`lipsync.mel_stream` says which speech a frame needs. Sessions share the networks with all other callers, by BLS.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.tensors import SEQUENCE_IDLE_SECONDS
from lipsync.triton.cpu import use_one_blas_thread
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from .. import tracing
from ..context import JobContext, RequestLogger, log_failure
from ..errors import AvatarError, InvalidField, ShuttingDown
from ..form.parse import MISSING, parse
from ..inference.bls_client import BlsInferenceClient
from ..request import AvatarRequest, Background
from ..resources.cache import open_cache
from ..resources.workspace import Workspace
from ..settings import MIB, LiveSettings, load, warn_of_old_names
from .inputs import open_workspace, write_form
from .live_access import SessionAccess
from .live_avatar import LiveAvatar, prepare
from .live_prepared import PreparedAvatars, avatar_key, check_only_avatar, open_shared
from .live_requests import takes_sequence
from .live_sequences import ID_BYTES, SequenceTable
from .live_session import LiveSession, SessionAvatar
from .live_sessions import LiveSessions
from .metrics import FRAMES, LATE_FRAMES, SESSIONS, ModelMetrics
from .request import StreamRequest
from .runner import RequestRunner
from .triton_log import log_to_triton

logger = logging.getLogger("avatar")

SWEEP_SECONDS = 0.5  # Triton forgets a sequence 3 s after its last request (`export.triton_config.runtimes`)
LATE_SECONDS = 0.1  # from which on a frame counts as late
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
        mel_spectrogram(np.zeros(SAMPLE_RATE, np.float32))  # its first call computes the filters
        use_one_blas_thread()  # after it, because it limits the libraries that are loaded
        tracing.start(self._settings.otlp_endpoint, "talking-avatar-triton")
        self._metrics = ModelMetrics(pb_utils, tensors.LIVE)
        self._sessions = LiveSessions(self._settings, lambda number: self._metrics.set(SESSIONS, number))
        self._table = SequenceTable(pb_utils)
        self._runner = RequestRunner(
            pb_utils, tensors.LIVE, self._metrics, CANCEL_POLL_SECONDS, self._table.is_internal
        )
        repository = Path(args["model_repository"]).parent
        self._models = BlsInferenceClient(pb_utils, repository, self._settings.triton_timeout, live=True)
        self._workspace: Workspace = self._runner.run(open_workspace(self._settings))
        self._files = ExitStack()
        self._files.callback(self._workspace.close)
        self._cache = open_cache(self._settings.cache_dir, self._settings.cache_mib * MIB)
        avatars = self._settings.live_avatars_mib * MIB
        self._avatars = PreparedAvatars(
            avatars, open_shared(self._settings.cache_dir, avatars) if self._cache else None
        )
        self._sweeper = asyncio.run_coroutine_threadsafe(self._sweep(), self._runner.loop)

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        """Start the work on the requests; those of one session are answered in their order."""
        self._runner.submit(requests, self._serve)

    def close(self) -> None:
        """End all sessions and remove all files."""
        self._sweeper.cancel()
        self._runner.close()
        self._table.close()
        self._files.close()
        self._metrics.close()
        tracing.stop()

    async def _serve(self, request: StreamRequest) -> None:
        self._sessions.track(request)
        if self._table.is_own(request):
            return
        if refusal := self._sessions.refusal(request):
            if request.is_end:
                await self._enter_again(request)
            if refusal.after:
                await refusal.after.ended.wait()
            if refusal.is_known:
                await request.fail(refusal.error)
                return
            raise refusal.error
        if self._table.is_internal(request):  # of another instance, which takes the error for a no; it is not logged
            await request.fail(InvalidField(tensors.FACE_FILE, MISSING))
            return
        session = await self._admit(request) if request.is_start else self._sessions.running[request.sequence]
        try:
            await session.push(request, self._prepare if request.is_start else None)
        except (InvalidField, InvalidInput) as error:
            if request.is_start or request.is_end:
                self._sessions.end(session, error if request.is_start else None, request)
            raise
        except Exception as error:  # something is broken, or the session has ended: nothing can follow
            self._sessions.end(session, error, request)
            if session.cause not in (None, request):
                await session.cause.ended.wait()
            raise
        except asyncio.CancelledError:  # the caller disconnected
            self._sessions.end(session)
            raise

    async def _admit(self, request: StreamRequest) -> LiveSession:
        """Make a session. Raises Unavailable, such as Busy at the limit of sessions."""
        required = self._settings.live_require_token or tensors.SESSION_TOKEN in request.inputs
        chosen = await self._new_sequence(request)  # waits for nothing if the id is the caller's

        def make() -> LiveSession:
            access = SessionAccess(required=required)
            finished = self._sessions.finished
            return LiveSession(request.id, access, self._models, self._settings, finished, self._count_frame, chosen)

        return self._sessions.admit(request, chosen or request.sequence, make)

    async def _new_sequence(self, request: StreamRequest) -> str:
        """Return the id of a sequence that a first request asks for; empty if it asks for none, or is invalid."""
        with suppress(InvalidField):  # the session says so
            if takes_sequence(request):
                return secrets.token_urlsafe(ID_BYTES) if request.is_end else await self._table.new()
        return ""

    def _count_frame(self, seconds_late: float) -> None:
        self._metrics.count(FRAMES)
        if seconds_late > LATE_SECONDS:
            self._metrics.count(LATE_FRAMES)

    async def _enter_again(self, request: StreamRequest) -> None:
        """Undo in Triton's table what an END has done that was not the caller's."""
        session = self._sessions.running.get(request.sequence)
        if session and not await self._table.enter(request.sequence):
            self._sessions.end(session)

    async def _prepare(self, request: StreamRequest, session: LiveSession) -> SessionAvatar:
        """Return the avatar that a session's first request describes, prepared now or before."""
        if tensors.PREPARED_AVATAR in request.inputs:
            return await self._prepared(request, session)
        async with self._workspace.folder() as folder:
            form = await asyncio.to_thread(write_form, request, folder, self._settings.max_upload_bytes)
            avatar_request = parse(form, folder, request.id, self._settings.limits, live=True)
            if avatar_request.background is Background.TRANSPARENT and avatar_request.background_file is None:
                reason = "Transparent is not supported in live sessions; choose a color"
                raise InvalidField(tensors.BACKGROUND, reason)
            info = await self._models.model_info(avatar_request.options.model)
            key = await asyncio.to_thread(avatar_key, avatar_request, info)
            if known := self._avatars.find(key):
                self._sessions.reserve(session, known[1].size)
                return SessionAvatar(known[1], known[0])
            avatar = await self._prepare_new(avatar_request, session)
            return SessionAvatar(avatar, await self._avatars.add(key, avatar))

    async def _prepared(self, request: StreamRequest, session: LiveSession) -> SessionAvatar:
        """Return the avatar whose id a first request has."""
        check_only_avatar(request)
        identity = request.texts()[tensors.PREPARED_AVATAR]
        avatar = await self._avatars.get(identity)
        self._sessions.reserve(session, avatar.size)
        info = await self._models.model_info(avatar.options.model)
        return SessionAvatar(replace(avatar, stand_ins=info.stand_ins), identity)

    async def _prepare_new(self, request: AvatarRequest, session: LiveSession) -> LiveAvatar:
        log = RequestLogger(request.id)
        job = JobContext(self._models, log, request.options, request.limits, cache=self._cache)
        try:
            return await prepare(request, job, lambda size: self._sessions.reserve(session, size))
        except AvatarError as error:
            log_failure(error, job.log)
            raise
        finally:
            job.timer.close()

    async def _sweep(self) -> None:
        """Close the sessions whose callers are gone or do not read, and keep the others in Triton's table."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._sweep_once()
            except ShuttingDown as reason:
                self._sessions.stop(reason)  # their later requests get the reason, for as long as the process lives
                await self._workspace.wait_unused()
                self._files.close()  # now, because a stream that stays open prevents a normal end of this process
                return
            except Exception:
                logger.exception("the sessions cannot be checked; this is tried again")

    async def _sweep_once(self) -> None:
        for session in self._sessions.idle():
            logger.info("session closed: no request for %d s", SEQUENCE_IDLE_SECONDS, extra=_extra(session))
            self._sessions.end(session)
        if unread := self._sessions.end_unread():
            logger.warning("session closed: its responses are not read", extra=_extra(unread))
        await asyncio.gather(*(self._keep(*each) for each in self._sessions.kept()))
        self._sessions.forget_ended()

    async def _keep(self, sequence: int | str, session: LiveSession) -> None:
        if not await self._table.keep(sequence):
            logger.warning("session closed: Triton does not keep its sequence", extra=_extra(session))
            self._sessions.end(session)


def _extra(session: LiveSession) -> dict[str, str]:
    return {"request_id": session.id}
