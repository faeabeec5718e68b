"""HTTP endpoints."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from pydantic import BaseModel, Field

from avatar.errors import ShuttingDown

from . import metrics, middleware
from .download import Download
from .errors import FACE_MISSING_AT, Problem
from .openapi import FORM_NAME
from .service import RenderedForm, Service

router = APIRouter()

MP4 = "application/mp4"  # as the original service sends it; the registered type is video/mp4
WEBM = "video/webm"
TIMING, FRAMES, STAND_INS = "Server-Timing", "X-Avatar-Frames", "X-Avatar-Stand-Ins"
WITHOUT_FACE = "X-Avatar-Frames-Without-Face"
_MISSING_AT = {
    FACE_MISSING_AT: {
        "description": "Where a frame shows no face: time of the first such frame in the video, in seconds.",
        "schema": {"type": "number"},
    }
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}
}


class Pong(BaseModel):
    """Response to a ping."""

    pong: str = Field("-", description="Always a dash.")


class Health(BaseModel):
    """Response of a healthy service."""

    status: str = Field(description="`live` or `ready`.")
    running: int = Field(description="Jobs that are running.")
    waiting: int = Field(description="Requests that wait in the queue.")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


async def _request_folder(service: ServiceDep) -> AsyncIterator[Path]:
    # FastAPI ends this after the last byte of the response, also when the request fails.
    async with service.workspace.folder() as folder:
        yield folder


def _problem(description: str, headers: Mapping[str, object] | None = None) -> dict[str, Any]:
    return {"model": Problem, "description": description} | ({"headers": headers} if headers else {})


_FORM = {"$ref": f"#/components/schemas/{FORM_NAME}"}
_VIDEO = {
    "description": "The video, as long as the speech: H.264 and AAC in mp4, or VP9 and Opus in WebM if the "
    "background is Transparent.",
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (MP4, WEBM)},
    "headers": {
        FRAMES: {"description": "Number of frames in the video.", "schema": {"type": "integer"}},
        WITHOUT_FACE: {
            "description": "Number of frames without a detected face (`no_face=keep`).",
            "schema": {"type": "integer"},
        },
        TIMING: {"description": "Milliseconds of each stage; stages overlap.", "schema": {"type": "string"}},
        STAND_INS: {
            "description": "Models that ran on stand-in checkpoints; absent with real weights.",
            "schema": {"type": "string"},
        },
    },
}


@router.post(
    "/",
    tags=["avatar"],
    summary="Make an avatar video",
    response_class=FileResponse,
    responses={
        200: _VIDEO,
        400: _problem(
            "Invalid input, or a frame without a face; `detail` names the field and the reason.", _MISSING_AT
        ),
        408: _problem("Upload timed out: no data was received for too long, or the upload is too slow."),
        413: _problem("A file exceeds the size limit."),
        415: _problem("The body is compressed."),
        429: _problem("This client address has as many requests under way as one may have.", _RETRY_AFTER),
        500: _problem("Internal error; the log has the details under the request id."),
        503: _problem("Triton is not ready, or the queue is full.", _RETRY_AFTER),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def make_avatar(
    request: Request, service: ServiceDep, folder: Annotated[Path, Depends(_request_folder)]
) -> Response:
    """Render a video of the face speaking the audio. Unknown fields are ignored, unless the service is strict."""
    rendered = await service.render_form(request, folder)
    setattr(request.state, middleware.STAGES, rendered.stages)
    setattr(request.state, middleware.FRAMES, rendered.result.frames)
    kind = MP4 if rendered.path.suffix == ".mp4" else WEBM
    response = Download(rendered.path, media_type=kind, headers=_headers(rendered), settings=service.settings)
    del response.headers["accept-ranges"]  # a response to POST has no ranges
    return response


@router.get("/ping", tags=["health"], summary="Check that the gateway responds")
async def ping() -> Pong:
    """Return the same response at all times, whether or not Triton is reachable."""
    return Pong(pong="-")


@router.get("/health/live", tags=["health"], summary="Liveness probe")
async def live(service: ServiceDep) -> Health:
    """Report that the process responds."""
    return _health("live", service)


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Readiness probe",
    responses={
        503: _problem("Triton is not reachable, a model is not ready, or the gateway is being stopped.", _RETRY_AFTER)
    },
)
async def ready(service: ServiceDep) -> Health:
    """Report that Triton is reachable and every model is ready."""
    if service.jobs.closed:
        raise ShuttingDown("the service is being stopped")
    await service.models.check_ready()
    return _health("ready", service)


@router.get("/metrics", tags=["health"], summary="Prometheus metrics", response_class=PlainTextResponse)
async def read_metrics(request: Request) -> Response:
    """Return counters and durations of this process, without any data of callers."""
    exported: metrics.Metrics = request.app.state.metrics
    return Response(exported.text(), media_type=metrics.CONTENT_TYPE)


def _health(status: str, service: Service) -> Health:
    return Health(status=status, running=service.jobs.running, waiting=service.jobs.queued)


def _headers(rendered: RenderedForm) -> dict[str, str]:
    timing = ", ".join(
        f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)};dur={s * 1000:.1f}" for name, s in rendered.stages.items()
    )
    headers = {
        TIMING: timing,
        FRAMES: str(rendered.result.frames),
        WITHOUT_FACE: str(rendered.result.without_face),
    }
    if rendered.result.stand_ins:
        headers[STAND_INS] = ", ".join(rendered.result.stand_ins)
    return headers
