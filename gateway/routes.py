"""HTTP endpoints."""

from __future__ import annotations

import re

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

from avatar.tracing import request_id

from . import metrics, middleware
from .download import Download
from .endpoint import RETRY_AFTER, FolderDep, ServiceDep, problem
from .errors import FACE_MISSING_AT
from .openapi import FORM_NAME, video_content
from .service import RenderedForm
from .v1.prefer import ACCEPTED, prefers_async, respond_async

router = APIRouter()

MP4 = "application/mp4"  # as the original service sends it; the registered type is video/mp4
WEBM = "video/webm"
TIMING, FRAMES, STAND_INS = "Server-Timing", "X-Avatar-Frames", "X-Avatar-Stand-Ins"
WITHOUT_FACE, NOTES = "X-Avatar-Frames-Without-Face", "X-Avatar-Notes"
ENCODER, DECODER = "X-Avatar-Encoder", "X-Avatar-Decoder"
_MISSING_AT = {
    FACE_MISSING_AT: {
        "description": "Where a frame shows no face: time of the first such frame in the video, in seconds.",
        "schema": {"type": "number"},
    }
}


_FORM = {"$ref": f"#/components/schemas/{FORM_NAME}"}
_VIDEO = {
    "description": "The video, as long as the speech: H.264 and AAC in mp4, or VP9 and Opus in WebM if the "
    "background is Transparent.",
    "content": video_content(MP4, WEBM),
    "headers": {
        "Content-Disposition": {
            "description": "Name of the file for a browser that saves it: `avatar-` and the id of the request.",
            "schema": {"type": "string"},
        },
        FRAMES: {"description": "Number of frames in the video.", "schema": {"type": "integer"}},
        WITHOUT_FACE: {
            "description": "Number of frames without a detected face; more than 0 only with `no_face=keep`.",
            "schema": {"type": "integer"},
        },
        NOTES: {
            "description": "What was done with an unusual file, such as gaps in the clock of the audio that were "
            "closed, or that the video could not be signed; sentences, separated by semicolons. Absent for ordinary "
            "files.",
            "schema": {"type": "string"},
        },
        ENCODER: {
            "description": "What encoded the video: `x264`, `nvenc` (the GPU) or `vp9`.",
            "schema": {"type": "string"},
        },
        DECODER: {
            "description": "What decoded the caller's video: `cpu` or `cuda` (the GPU). Absent for an image.",
            "schema": {"type": "string"},
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
        202: ACCEPTED,
        400: problem("Invalid input, or a frame without a face; `detail` names the field and the reason.", _MISSING_AT),
        401: problem("The service needs an API key, and the request has no valid one."),
        408: problem("Upload timed out: no data was received for too long, or the upload is too slow."),
        413: problem("A file exceeds the size limit."),
        415: problem("The body is compressed."),
        429: problem("A limit of this API key, or of this client address, is reached.", RETRY_AFTER),
        500: problem("Internal error; the log has the details under the request id."),
        503: problem(
            "A model does not respond, the queue is full, or the disk or ffmpeg of this machine fails.", RETRY_AFTER
        ),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def make_avatar(request: Request, service: ServiceDep, folder: FolderDep) -> Response:
    """Render a video of the face speaking the audio. Unknown fields are ignored, unless the service is strict.

    With `Prefer: respond-async`, and a database, the answer is a job of `/v1/jobs` in place of the video.
    """
    if prefers_async(request) and service.v1 and service.v1.schema.ready:
        return await respond_async(request, service, service.v1, folder)
    rendered = await service.render_form(request, folder)
    setattr(request.state, middleware.STAGES, rendered.stages)
    setattr(request.state, middleware.FRAMES, rendered.result.frames)
    kind = MP4 if rendered.path.suffix == ".mp4" else WEBM
    headers = _headers(rendered) | {"Content-Disposition": f'inline; filename="{_file_name(rendered)}"'}
    response = Download(rendered.path, media_type=kind, headers=headers, settings=service.settings)
    del response.headers["accept-ranges"]  # a response to POST has no ranges
    return response


@router.get("/metrics", include_in_schema=False, response_class=PlainTextResponse)
async def read_metrics(request: Request, service: ServiceDep) -> Response:
    """Return counters and durations of this process and the state of the queue, without any data of callers."""
    exported: metrics.Metrics = request.app.state.metrics
    if service.v1:
        exported.show_queue(await service.v1.queue_state())
    return Response(exported.text(), media_type=metrics.CONTENT_TYPE)


def _file_name(rendered: RenderedForm) -> str:
    """Return the name under which a browser saves the video; an id of a request has no character to escape."""
    return f"avatar-{request_id.get()}{rendered.path.suffix}"


def _headers(rendered: RenderedForm) -> dict[str, str]:
    timing = ", ".join(
        f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)};dur={s * 1000:.1f}" for name, s in rendered.stages.items()
    )
    headers = {
        TIMING: timing,
        FRAMES: str(rendered.result.frames),
        WITHOUT_FACE: str(rendered.result.without_face),
    }
    if rendered.result.encoder:
        headers[ENCODER] = rendered.result.encoder
    if rendered.result.decoder:
        headers[DECODER] = rendered.result.decoder
    if rendered.result.notes:
        headers[NOTES] = "; ".join(rendered.result.notes)
    if rendered.result.stand_ins:
        headers[STAND_INS] = ", ".join(rendered.result.stand_ins)
    return headers
