"""The endpoints."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from pydantic import BaseModel, Field

from avatar.errors import ShuttingDown
from gateway.service import Made, Service

from . import metrics, middleware
from .errors import FACE_MISSING_AT, Problem
from .openapi import FORM_NAME

router = APIRouter()

MP4 = "application/mp4"  # as the original says it; the registered name is video/mp4
WEBM = "video/webm"
TIMING, FRAMES, STAND_INS = "Server-Timing", "X-Avatar-Frames", "X-Avatar-Stand-Ins"
WITHOUT_FACE = "X-Avatar-Frames-Without-Face"
_MISSING_AT = {
    FACE_MISSING_AT: {
        "description": "Where a frame shows no face: the seconds of the video up to the first such frame.",
        "schema": {"type": "number"},
    }
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}}


class Pong(BaseModel):
    """The answer to a ping."""

    pong: str = Field("-", description="Always a dash.")


class Health(BaseModel):
    """A good state of health."""

    status: str = Field(description="`live` or `ready`.")
    running: int = Field(description="Jobs running now.")
    waiting: int = Field(description="Forms that wait for their turn.")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]


async def _request_folder(service: Serving) -> AsyncIterator[Path]:
    # FastAPI ends this after the answer's last byte is sent, and whatever goes wrong before.
    async with service.workspace.folder() as folder:
        yield folder


def _problem(description: str, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"model": Problem, "description": description} | ({"headers": headers} if headers else {})


_FORM = {"$ref": f"#/components/schemas/{FORM_NAME}"}
_MADE = {
    "description": "The avatar, as long as the speech: H.264 and AAC in mp4; before nothing (Transparent) VP9 and Opus "
    "in WebM.",
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (MP4, WEBM)},
    "headers": {
        FRAMES: {"description": "Pictures in the video.", "schema": {"type": "integer"}},
        WITHOUT_FACE: {
            "description": "Of them, those in which no face was found (`no_face=keep`).",
            "schema": {"type": "integer"},
        },
        TIMING: {"description": "Time spent in each stage; stages overlap.", "schema": {"type": "string"}},
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
        200: _MADE,
        400: _problem(
            "The form, a file in it, or a picture without a face: `detail` names the field and the reason.", _MISSING_AT
        ),
        408: _problem("The upload paused for too long."),
        413: _problem("A file is over the limit."),
        500: _problem("A defect; the service's log says more under the request's id."),
        503: _problem("Triton is not ready, or too many requests are waiting.", _RETRY_AFTER),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def make_avatar(request: Request, service: Serving, folder: Annotated[Path, Depends(_request_folder)]) -> Any:  # noqa: ANN401
    """A face and a speech in, the video of the face speaking out. Unknown fields pass, unless the form is strict."""
    made = await service.make(request, folder)
    setattr(request.state, middleware.STAGES, made.stages)
    setattr(request.state, middleware.FRAMES, made.rendered.frames)
    kind = MP4 if made.path.suffix == ".mp4" else WEBM
    answer = FileResponse(made.path, media_type=kind, headers=_headers(made))
    del answer.headers["accept-ranges"]  # there are none of an answer to POST
    return answer


@router.get("/ping", tags=["health"], summary="Is the gateway there?")
async def ping() -> Pong:
    """Always the same, whether or not the models can be reached."""
    return Pong(pong="-")


@router.get("/health/live", tags=["health"], summary="Should this process be left alone?")
async def live(service: Serving) -> Health:
    """The event loop turns."""
    return _health("live", service)


@router.get(
    "/health/ready",
    tags=["health"],
    summary="Should forms be sent here?",
    responses={
        503: _problem("Triton cannot be reached, a model is not ready, or the gateway is stopping.", _RETRY_AFTER)
    },
)
async def ready(service: Serving) -> Health:
    """Triton is reached and every model is ready."""
    if service.jobs.closed:
        raise ShuttingDown("the service is being stopped")
    await service.models.check_ready()
    return _health("ready", service)


@router.get("/metrics", tags=["health"], summary="What Prometheus reads", response_class=PlainTextResponse)
async def read_metrics(request: Request) -> Response:
    """Counters and times of this process; nothing about who asked or what was sent."""
    counted: metrics.Metrics = request.app.state.metrics
    return Response(counted.text(), media_type=metrics.CONTENT_TYPE)


def _health(status: str, service: Service) -> Health:
    return Health(status=status, running=service.jobs.running, waiting=service.jobs.in_line)


def _headers(made: Made) -> dict[str, str]:
    timing = ", ".join(f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)};dur={s * 1000:.1f}" for name, s in made.stages.items())
    headers = {
        TIMING: timing,
        FRAMES: str(made.rendered.frames),
        WITHOUT_FACE: str(made.rendered.without_face),
    }
    if made.rendered.stand_ins:
        headers[STAND_INS] = ", ".join(made.rendered.stand_ins)
    return headers
