"""One form from arrival to result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from avatar.events import Event, Progress, Rendered
from avatar.form.parse import parse
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from avatar.resources.admission import Jobs
from avatar.resources.workspace import Workspace
from gateway.settings import Settings
from gateway.uploads import receive_form

from .cancellation import attended
from .logging_config import request_id

logger = logging.getLogger(__name__)

Render = Callable[[AvatarRequest, InferenceClient], AsyncGenerator[Event, None]]


@dataclass(frozen=True)
class Made:
    """A finished job, its file, and the seconds of each stage, the gateway's own (`upload`, `queue`) in front."""

    rendered: Rendered
    path: Path
    stages: dict[str, float]


@dataclass(frozen=True)
class Service:
    """What the endpoints share; one a process."""

    settings: Settings
    models: InferenceClient
    render: Render
    workspace: Workspace
    jobs: Jobs

    async def make(self, request: Request, folder: Path) -> Made:
        """Read the form into `folder`, wait for a turn, do the job. Raises what `gateway.problems` lists."""
        with self.jobs.place():
            begun = time.perf_counter()
            form = await attended(receive_form(request, folder, self.settings), self.jobs.stopped)
            job = parse(form, folder, request_id.get(), self.settings.limits)
            stages = {"upload": time.perf_counter() - begun}
            rendered = await attended(self._work(job, stages), self.jobs.stopped, request.receive)
            await asyncio.to_thread(
                _remove, job.face, job.speech, job.background_file
            )  # a slow download holds on to the result alone
        stages.update(rendered.seconds)
        if rendered.path is None:
            raise RuntimeError("the job ended without a file")
        return Made(rendered, rendered.path, stages)

    async def _work(self, job: AvatarRequest, stages: dict[str, float]) -> Rendered:
        begun = time.perf_counter()
        async with self.jobs.turn():
            stages["queue"] = time.perf_counter() - begun
            await self.models.check_ready()
            rendered: Rendered | None = None
            async with aclosing(self.render(job, self.models)) as events:
                async for event in events:  # to its very end: what follows the result is clean-up
                    if isinstance(event, Rendered):
                        rendered = event
                    elif isinstance(event, Progress):
                        logger.debug("%s: %d of %s", event.stage, event.done, event.total or "?")
        if rendered is None:
            raise RuntimeError("the job ended without a result")
        if rendered.stand_ins:
            logger.warning("made with STAND-IN checkpoints: %s", ", ".join(rendered.stand_ins))
        return rendered


def _remove(*uploads: Path | None) -> None:
    for upload in filter(None, uploads):
        upload.unlink(missing_ok=True)
