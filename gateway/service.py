"""Process one form: receive it, queue the job, run it, return the result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from avatar.events import Event, Progress, RenderResult
from avatar.form.parse import parse
from avatar.inference.protocol import InferenceClient
from avatar.inspection import FaceReport
from avatar.request import AvatarRequest
from avatar.resources.admission import Admission
from avatar.resources.workspace import Workspace
from avatar.tracing import request_id, span
from jobs.keys import KeyFile
from jobs.quotas import RunningForms

from .authentication import caller_of
from .cancellation import run_until_disconnect
from .clients import ClientShares, client_of
from .job_service import JobService
from .live_service import LiveService
from .machine import Machine
from .settings import Settings
from .uploads import receive_form

logger = logging.getLogger(__name__)

Render = Callable[[AvatarRequest, InferenceClient], AsyncGenerator[Event, None]]
Inspect = Callable[[AvatarRequest, InferenceClient], Awaitable[FaceReport]]


@dataclass(frozen=True)
class RenderedForm:
    """Result of a job, its file, and seconds by stage, starting with the gateway's stages `upload` and `queue`."""

    result: RenderResult
    path: Path
    stages: dict[str, float]


@dataclass(frozen=True)
class Service:
    """State that the endpoints share; one per process."""

    settings: Settings
    models: InferenceClient
    render: Render
    workspace: Workspace
    jobs: Admission
    shares: ClientShares
    machine: Machine
    forms: RunningForms
    keys: KeyFile | None
    inspect: Inspect
    live: LiveService
    v1: JobService | None = None

    async def render_form(self, request: Request, folder: Path) -> RenderedForm:
        """Receive the form into `folder`, wait in the queue, run the job. Raises what `gateway.errors` lists."""
        client = client_of(request, self.settings.trusted_proxies)
        caller = caller_of(request)
        with self.shares.hold(client), self.forms.hold(caller.tenant, caller.limits), self.jobs.admit():
            start = time.perf_counter()
            with span("upload"):
                form = await run_until_disconnect(receive_form(request, folder, self.settings), self.jobs.stopped)
            job = parse(form, folder, request_id.get(), self.settings.limits)
            stages = {"upload": time.perf_counter() - start}
            rendered = await run_until_disconnect(self._work(job, stages), self.jobs.stopped, request.receive)
            # during a slow download only the result stays on the disk
            await asyncio.to_thread(_remove, job.face_path, job.audio_path, job.background_file)
        stages.update(rendered.seconds)
        if rendered.path is None:
            raise RuntimeError("the job produced no file")
        return RenderedForm(rendered, rendered.path, stages)

    async def _work(self, job: AvatarRequest, stages: dict[str, float]) -> RenderResult:
        start = time.perf_counter()
        async with self.jobs.slot():
            stages["queue"] = time.perf_counter() - start
            await self.machine.check_failing()
            await self.models.check_ready()
            rendered: RenderResult | None = None
            async with aclosing(self.render(job, self.models)) as events:
                async for event in events:  # to the end, because clean-up follows the result
                    if isinstance(event, RenderResult):
                        rendered = event
                    elif isinstance(event, Progress):
                        logger.debug("%s: %d of %s", event.stage, event.done, event.total or "?")
        if rendered is None:
            raise RuntimeError("the job produced no result")
        if rendered.stand_ins:
            logger.warning("rendered with STAND-IN checkpoints: %s", ", ".join(rendered.stand_ins))
        return rendered


def _remove(*uploads: Path | None) -> None:
    for upload in filter(None, uploads):
        upload.unlink(missing_ok=True)
