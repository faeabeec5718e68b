"""Assemble the ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from avatar.inference.protocol import InferenceClient
from avatar.inspection import inspect_face
from avatar.media.self_test import SELF_TEST
from avatar.resources.admission import Admission
from avatar.resources.cache import Cache, open_cache
from avatar.settings import MIB
from jobs.background import background
from jobs.keys import KeyFile, KeyLimits, open_keys
from jobs.quotas import RunningForms, UploadRates
from jobs.runtime import connect_models, greet_models, open_workspace, real_job

from . import docs_pages, error_handlers, health
from .authentication import Authentication
from .clients import ClientShares
from .errors import FACE_MISSING_AT
from .live.routes import router as live_router
from .live_service import LiveService
from .machine import Machine
from .metrics import Metrics
from .middleware import ID_HEADER, InternalErrorMiddleware, RequestContext
from .openapi import complete
from .other_methods import head_and_options
from .page.routes import page_router
from .routes import DECODER, ENCODER, FRAMES, NOTES, STAND_INS, TIMING, WITHOUT_FACE, router
from .service import Render, Service
from .settings import Settings
from .socket_context import SocketContext
from .unknown_fields import HEADER as IGNORED
from .v1.endpoint import operation_id
from .v1.lifespan import open_jobs
from .v1.routers import EXPOSED, v1_routers
from .webrtc.routes import router as webrtc_router

_DESCRIPTION = """Send an image or video of a face and a recording of speech; receive an mp4 of the face speaking.

NVIDIA Triton runs the models: S3FD detects the face, Wav2Lip moves its lips, PixelLib replaces an image's background.
Every response has an `X-Request-ID`, the caller's own if it sends one; the body of every error is `{"detail": "..."}`,
with a `code` for programs in those of `/v1`.
"""

_RESULT_HEADERS = (TIMING, FRAMES, WITHOUT_FACE, NOTES, STAND_INS, ENCODER, DECODER)


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the schema, with the bodies that `gateway.uploads` reads itself."""
        if not self.openapi_schema:
            complete(super().openapi())
        return super().openapi()


def create_app(settings: Settings, models: InferenceClient | None = None, render: Render | None = None) -> FastAPI:
    """Return the gateway as an ASGI application.

    Args:
        settings: see `gateway.settings`.
        models: client for the models; by default, Triton at the address in the settings. A client that is passed in
            has to be closed by the caller.
        render: the job; by default, the real one with the avatar cache of the settings.

    Raises:
        BadKeys: the file of the API keys cannot be read.
    """
    metrics = Metrics()
    keys, rates = open_keys(settings), UploadRates()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _service(settings, models, render, metrics, keys, rates) as service:
            app.state.service = service
            yield

    app = _App(
        title="Talking avatar",
        summary="One form in, an avatar video out.",
        description=_DESCRIPTION,
        version=version("talking-avatar"),
        lifespan=lifespan,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        generate_unique_id_function=operation_id,
        openapi_url=docs_pages.OPENAPI if settings.docs else None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.metrics = metrics
    pages = (page_router(settings), *((docs_pages.router,) if settings.docs else ()))
    routers = (router, *v1_routers, live_router, webrtc_router, health.router, *pages)
    for each in (*routers, head_and_options(*routers)):
        app.include_router(each)
    error_handlers.install(app)
    _add_middleware(app, metrics, settings, keys, rates)
    return app


def _add_middleware(
    app: FastAPI, metrics: Metrics, settings: Settings, keys: KeyFile | None, rates: UploadRates
) -> None:
    """The middleware that is added last is the outermost."""
    app.add_middleware(Authentication, keys=keys, defaults=KeyLimits.of(settings), rates=rates)
    app.add_middleware(InternalErrorMiddleware)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        allow_credentials=settings.cors_credentials,
        expose_headers=[*_RESULT_HEADERS, ID_HEADER, IGNORED, FACE_MISSING_AT, "Retry-After", *EXPOSED],
    )
    app.add_middleware(RequestContext, metrics=metrics, draining=partial(_is_draining, app))
    app.add_middleware(SocketContext, metrics=metrics)


def _is_draining(app: FastAPI) -> bool:
    service: Service | None = getattr(app.state, "service", None)
    return service is not None and service.jobs.draining


@asynccontextmanager
async def _service(
    settings: Settings,
    models: InferenceClient | None,
    render: Render | None,
    metrics: Metrics,
    keys: KeyFile | None,
    rates: UploadRates,
) -> AsyncIterator[Service]:
    """Open what the endpoints share, and close it at the end: jobs, models, work folder."""
    async with AsyncExitStack() as stack:
        if models is None:
            models = connected = connect_models(settings)
            stack.push_async_callback(connected.close)
            await stack.enter_async_context(background(greet_models(connected, settings)))
        metrics.triton.watch(models)
        workspace = await stack.enter_async_context(open_workspace(settings))
        cache = await asyncio.to_thread(_open_cache, settings, metrics) if render is None else None
        job = await asyncio.to_thread(real_job, settings, cache) if render is None else render
        machine = Machine(workspace, None if render else SELF_TEST)
        jobs = Admission(settings.max_jobs, settings.max_queued)
        stack.callback(jobs.close, grace=0)
        metrics.watch_jobs(lambda: jobs.running, lambda: jobs.queued)
        shares, inspect = ClientShares(settings.jobs_per_client), partial(inspect_face, cache=cache)
        live = LiveService(settings, metrics, rates)
        stack.push_async_callback(live.close)
        service = Service(settings, models, job, workspace, jobs, shares, machine, RunningForms(), keys, inspect, live)
        async with open_jobs(service, metrics) as v1:
            yield replace(service, v1=v1)


def _open_cache(settings: Settings, metrics: Metrics) -> Cache | None:
    cache = open_cache(settings.cache_dir, settings.cache_mib * MIB)
    if cache:
        metrics.watch_cache(lambda: cache.hits, lambda: cache.misses)
    return cache
