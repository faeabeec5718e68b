"""The whole job as the Triton model `avatar`: the pipeline's gRPC interface, as `gateway` is its HTTP interface."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from lipsync.tensors import AVATAR
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from .. import tracing
from ..events import Chunk, Event, Progress, RenderResult
from ..form.parse import parse
from ..inference.bls_client import BlsInferenceClient
from ..load import MemoryBudget
from ..media.marking import Marker
from ..pipeline import render
from ..resources.admission import Admission
from ..resources.cache import open_cache
from ..resources.workspace import Workspace
from ..settings import MIB, StreamSettings, load, warn_of_old_names
from ..streams import cancel_and_wait
from .inputs import open_workspace, write_form
from .metrics import STAGE_SECONDS, ModelMetrics
from .request import NotRead, StreamRequest
from .runner import RequestRunner
from .server_memory import UnreadLimit
from .triton_log import log_to_triton

logger = logging.getLogger("avatar")

QUEUE_HEARTBEAT_SECONDS = 5.0  # between two responses that say that the job is still queued
PROGRESS_SECONDS = 0.1  # between two responses about one stage; its first and its last are always sent


class RenderModel:
    """Answers the requests of the model `avatar`, in the model's own process."""

    def __init__(self, pb_utils: PbUtils, args: Mapping[str, str]) -> None:
        """Start the model; `args` is what Triton passes to `initialize`.

        Raises:
            BadSetting, OSError: Triton then does not load the model.
        """
        log_to_triton(pb_utils, AVATAR)
        self._settings = load(StreamSettings)
        warn_of_old_names(StreamSettings, logger)
        tracing.start(self._settings.otlp_endpoint, "talking-avatar-triton")
        self._metrics = ModelMetrics(pb_utils, AVATAR)
        self._runner = RequestRunner(pb_utils, AVATAR, self._metrics)
        repository = Path(args["model_repository"]).parent
        self._models = BlsInferenceClient(pb_utils, repository, self._settings.triton_timeout)
        self._workspace: Workspace = self._runner.run(open_workspace(self._settings))
        self._admission = Admission(self._settings.max_jobs, self._settings.max_queued)
        cache = open_cache(self._settings.cache_dir, self._settings.cache_mib * MIB)
        memory = MemoryBudget(self._settings.jobs_memory_mib * MIB)
        self._render = partial(render, cache=cache, memory=memory, marker=Marker.of(self._settings))

    def execute(self, requests: Sequence[InferenceRequest]) -> None:
        """Start the jobs of the requests; each sends its responses as it progresses."""
        self._runner.submit(requests, self._serve)

    def close(self) -> None:
        """Cancel the running jobs and remove all files."""
        self._runner.close()
        self._workspace.close()
        self._metrics.close()
        tracing.stop()

    async def _serve(self, request: StreamRequest) -> None:
        start = time.monotonic()
        request.check()
        with self._admission.admit():
            async with self._workspace.folder() as folder:
                form = await asyncio.to_thread(write_form, request, folder, self._settings.max_upload_bytes)
                avatar_request = parse(form, folder, request.id, self._settings.limits, streamed=True)
                async with self._slot(request):
                    limit = UnreadLimit(self._settings.unread_mib * MIB)
                    result = await stream(request, self._render(avatar_request, self._models), limit)
        for stage, spent in result.seconds.items():
            self._metrics.observe(STAGE_SECONDS, stage, spent)
        # now that the slot is free and the files are removed: the caller may send its next request at once
        await request.finish(summary=json.dumps(summary(result)))
        stages = " ".join(f"{stage}={spent:.3f}" for stage, spent in result.seconds.items())
        seconds = time.monotonic() - start
        logger.info("200 %d frames in %.3f s %s", result.frames, seconds, stages, extra={"request_id": request.id})

    @asynccontextmanager
    async def _slot(self, request: StreamRequest) -> AsyncIterator[None]:
        """Wait for a slot to run the job in; until then, send the caller a heartbeat."""
        heartbeat = asyncio.create_task(_send_queue_heartbeat(request))
        try:
            async with self._admission.slot():
                await cancel_and_wait(heartbeat)  # it has not started where the slot was free at once
                yield
        finally:
            await cancel_and_wait(heartbeat)


async def stream(
    request: StreamRequest,
    job: AsyncGenerator[Event],
    limit: UnreadLimit,
    clock: Callable[[], float] = time.monotonic,
) -> RenderResult:
    """Do the job (see `pipeline.render`), send its progress and the chunks of its video, and return the result.

    Raises:
        AvatarError: as `pipeline.render`.
        NotRead: the video is over the limit, and its caller does not read it.
    """
    result: RenderResult | None = None
    sent = 0
    last_sent: dict[str, float] = {}
    async with aclosing(job) as events:
        async for event in events:
            if isinstance(event, Chunk):
                await request.send(video=np.frombuffer(event.data, np.uint8))
                sent += len(event.data)
                if limit.is_exceeded(sent):
                    raise NotRead(sent // MIB)
            elif isinstance(event, RenderResult):
                result = event
            elif _is_due(event, last_sent.get(event.stage), clock()):
                last_sent[event.stage] = clock()
                await request.send(stage=event.stage, done=event.done, total=-1 if event.total is None else event.total)
    if result is None:
        raise RuntimeError("the job ended without a result")
    if result.stand_ins:
        names = ", ".join(result.stand_ins)
        logger.warning("made with STAND-IN checkpoints: %s", names, extra={"request_id": request.id})
    return result


def summary(result: RenderResult) -> dict[str, object]:
    """Return the last response's JSON object; docs/grpc/render.md describes it."""
    return {
        "frames": result.frames,
        "fps": str(result.fps),
        "duration": result.duration,
        "without_face": result.without_face,
        "seconds": {stage: round(spent, 6) for stage, spent in result.seconds.items()},
        "stand_ins": list(result.stand_ins),
        "container": result.container,
        "notes": list(result.notes),
        "encoder": result.encoder,
        "decoder": result.decoder,
    }


async def _send_queue_heartbeat(request: StreamRequest) -> None:
    while True:
        await request.send(stage="queue", done=0, total=-1)
        await asyncio.sleep(QUEUE_HEARTBEAT_SECONDS)


def _is_due(event: Progress, last: float | None, now: float) -> bool:
    return last is None or event.done == event.total or now - last >= PROGRESS_SECONDS
