"""The whole job as a Triton model, `avatar`: the gRPC face of the pipeline, as `gateway` is its HTTP face."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np

from lipsync.tensors import AVATAR, BACKGROUND, FACE_TYPE
from lipsync.triton.pb_utils import InferenceRequest, PbUtils

from ..errors import TooLarge
from ..events import Chunk, Progress, RenderResult
from ..form.parse import FILES, Form, Upload, parse
from ..inference.bls_client import BlsInferenceClient
from ..inference.protocol import InferenceClient
from ..pipeline import render
from ..request import AvatarRequest
from ..resources.admission import Admission
from ..resources.cache import Cache, open_cache
from ..resources.workspace import Workspace
from ..settings import MIB, JobSettings, load
from ..streams import cancel_and_wait
from .runner import RequestRunner, StreamRequest, log_to_triton

logger = logging.getLogger("avatar")

# What the form needs and a call may leave out. Of a still or a video the content decides; of a GIF, this.
DEFAULTS = {FACE_TYPE: "png", BACKGROUND: "From Input"}
WAITING_SECONDS = 5.0  # between two answers that the job still stands in line
PROGRESS_SECONDS = 0.1  # between two answers about one stage; its first and its last are always told


class RenderModel:
    """Answers the requests of the model `avatar`, whose stub process it lives in."""

    def __init__(self, pb_utils: PbUtils, args: Mapping[str, str]) -> None:
        """`args`: what Triton hands to `initialize`. Raises BadSetting and OSError: the model does not load then."""
        log_to_triton(pb_utils, AVATAR)
        self._settings = load(JobSettings)
        self._calls = RequestRunner(pb_utils, AVATAR)
        self._models = BlsInferenceClient(pb_utils, Path(args["model_repository"]).parent)
        self._workspace: Workspace = self._calls.run(open_workspace(self._settings))
        self._jobs = Admission(self._settings.max_jobs, self._settings.max_waiting)
        self._cache = open_cache(self._settings.cache_dir, self._settings.cache_mib * MIB)

    def execute(self, requests: list[InferenceRequest]) -> None:
        """Begin with requests; each is answered as it gets on."""
        self._calls.submit(requests, self._serve)

    def close(self) -> None:
        """End what still runs, and leave nothing."""
        self._calls.close()
        self._workspace.close()

    async def _serve(self, call: StreamRequest) -> None:
        begun = time.monotonic()
        call.check()
        with self._jobs.admit():
            async with self._workspace.folder() as folder:
                form = await asyncio.to_thread(write_form, call, folder, self._settings.max_upload_bytes)
                asked = parse(form, folder, call.id, self._settings.limits, streamed=True)
                async with self._turn(call):
                    made = await stream(call, asked, self._models, self._cache)
        seconds = " ".join(f"{stage}={spent:.3f}" for stage, spent in made.seconds.items())
        took = time.monotonic() - begun
        logger.info("200 %d frames in %.3f s %s", made.frames, took, seconds, extra={"request_id": call.id})

    @asynccontextmanager
    async def _turn(self, call: StreamRequest) -> AsyncIterator[None]:
        """A turn to work; who waits for it hears of that again and again, and so that it is not forgotten."""
        telling = asyncio.create_task(_send_queue_heartbeat(call))
        try:
            async with self._jobs.slot():
                await cancel_and_wait(telling)  # which has not begun where the turn came at once
                yield
        finally:
            await cancel_and_wait(telling)


async def stream(
    call: StreamRequest,
    asked: AvatarRequest,
    models: InferenceClient,
    cache: Cache | None,
    clock: Callable[[], float] = time.monotonic,
) -> RenderResult:
    """Do the job, and tell of it: progress, chunks, and at the end the summary. Raises as `pipeline.render`."""
    made: RenderResult | None = None
    told: dict[str, float] = {}
    async with aclosing(render(asked, models, cache)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                await call.send(video=np.frombuffer(event.data, np.uint8))
            elif isinstance(event, RenderResult):
                made = event
            elif _is_due(event, told.get(event.stage), clock()):
                told[event.stage] = clock()
                await call.send(stage=event.stage, done=event.done, total=-1 if event.total is None else event.total)
    if made is None:
        raise RuntimeError("the job ended without a result")
    if made.stand_ins:
        names = ", ".join(made.stand_ins)
        logger.warning("made with STAND-IN checkpoints: %s", names, extra={"request_id": call.id})
    await call.finish(summary=json.dumps(summary(made)))
    return made


def summary(made: RenderResult) -> dict[str, object]:
    """The last answer's JSON: see docs/grpc/render.md."""
    return {
        "frames": made.frames,
        "fps": str(made.fps),
        "duration": made.duration,
        "without_face": made.without_face,
        "seconds": {stage: round(spent, 6) for stage, spent in made.seconds.items()},
        "stand_ins": list(made.stand_ins),
        "container": made.container,
    }


def write_form(call: StreamRequest, folder: Path, most: int) -> Form:
    """The call's inputs as a form, its files in `folder`. Raises TooLarge for one of more than `most` bytes."""
    form: dict[str, str | Upload] = {**DEFAULTS, **call.texts()}
    for name, file in FILES.items():
        data = call.array(name)
        if data is None:
            continue
        if data.nbytes > most:
            raise TooLarge(f"{name}: the file is larger than {most} bytes")
        (folder / file).write_bytes(data.data)
        form[name] = Upload(folder / file, data.nbytes)
        del call.inputs[name]  # on disk now
    return form


async def open_workspace(settings: JobSettings) -> Workspace:
    """This process's folder for its requests' files. Raises OSError."""
    workspace = Workspace(settings.work_dir)  # on the loop that will use it
    await asyncio.to_thread(workspace.open)
    return workspace


async def _send_queue_heartbeat(call: StreamRequest) -> None:
    while True:
        await call.send(stage="queue", done=0, total=-1)
        await asyncio.sleep(WAITING_SECONDS)


def _is_due(event: Progress, last: float | None, now: float) -> bool:
    return last is None or event.done == event.total or now - last >= PROGRESS_SECONDS
