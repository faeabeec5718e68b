"""The application, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from avatar.inference.grpc_client import TritonModels
from avatar.inference.protocol import InferenceClient
from avatar.pipeline import render as render_avatar
from avatar.resources.admission import Jobs
from avatar.resources.cache import Cache, open_cache
from avatar.resources.workspace import Workspace
from avatar.settings import MIB
from gateway.metrics import Metrics
from gateway.routes import FRAMES, STAND_INS, TIMING, WITHOUT_FACE, router
from gateway.service import Render, Service
from gateway.settings import Settings

from . import errors
from .middleware import ID_HEADER, RequestContext
from .openapi import FORM_NAME, FORM_SCHEMA

_ABOUT = """A picture or video of a face and a recording of speech in; an mp4 of the face speaking out.

The work is done by NVIDIA Triton: S3FD finds the face, Wav2Lip moves its lips, PixelLib changes a still's background.
Every answer carries an `X-Request-ID`, the caller's own if it sends one; every error is `{"detail": "..."}`.
"""


logger = logging.getLogger(__name__)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The schema, with the form that `gateway.uploads` reads by itself."""
        schema = super().openapi()
        schema["components"]["schemas"][FORM_NAME] = FORM_SCHEMA
        return schema


def create_app(settings: Settings, models: InferenceClient | None = None, render: Render | None = None) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: see `gateway.settings`.
        models: how to reach the models; left out, Triton at `settings.triton`. Who passes it closes it.
        render: the job; left out, the real one, which remembers avatars as the settings say.
    """

    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        workspace = Workspace(settings.work_dir)
        await asyncio.to_thread(workspace.open)
        reached = models or TritonModels(
            settings.triton, settings.triton_timeout, shared_memory=settings.triton_shared_memory == "auto"
        )
        job = render or partial(render_avatar, cache=await asyncio.to_thread(_cache, settings, metrics))
        jobs = Jobs(settings.max_jobs, settings.max_waiting)
        metrics.watch(lambda: jobs.running, lambda: jobs.in_line)
        app.state.service = Service(settings, reached, job, workspace, jobs)
        try:
            yield
        finally:
            jobs.close(grace=0)
            await workspace.unused()
            if models is None:
                await reached.close()
            await asyncio.to_thread(workspace.close)

    app = _App(
        title="Talking avatar",
        summary="One form in, an avatar video out.",
        description=_ABOUT,
        version=version("talking-avatar"),
        lifespan=lifespan,
    )
    app.state.metrics = metrics
    app.include_router(router)
    errors.install(app)
    # The last one added stands outermost.
    app.add_middleware(errors.Defects)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=[ID_HEADER, TIMING, FRAMES, WITHOUT_FACE, errors.FACE_MISSING_AT, STAND_INS, "Retry-After"],
    )
    app.add_middleware(RequestContext, metrics=metrics)
    return app


def _cache(settings: Settings, metrics: Metrics) -> Cache | None:
    cache = open_cache(settings.cache_dir, settings.cache_mib * MIB)
    if cache:
        metrics.watch_cache(lambda: cache.hits, lambda: cache.misses)
    return cache
