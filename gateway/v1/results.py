"""`GET /v1/jobs/{id}/result`: the video, whole or in ranges, or a redirect to the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from jobs.errors import NotFinished, ResultGone
from jobs.records import Job, JobResult, JobState
from jobs.repository import read
from jobs.store import MissingBlob

from ..codes import ErrorCode
from ..download import PacedStream
from ..endpoint import RETRY_AFTER, problem
from ..job_service import JobService
from ..openapi import video_content
from .endpoint import NOT_FOUND, PROBLEMS, CallerDep, JobServiceDep, operation_id
from .ranges import Unsatisfiable, matches, parse_range

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=PROBLEMS, generate_unique_id_function=operation_id)

SIGNED_SECONDS = 3600.0  # for which the URL of a redirect may be used
_VIDEOS = video_content("video/mp4", "video/webm")
_ETAG = {"ETag": {"description": "SHA-256 of the video.", "schema": {"type": "string"}}}
_GONE = {
    JobState.FAILED: "the job failed, and has no result: {}",
    JobState.CANCELED: "the job was canceled, and has no result",
    JobState.EXPIRED: "the result was removed when its time was over",
}
_REMOVED = "the result was removed"


@router.get(
    "/{job_id}/result",
    summary="Get the video of a job",
    response_class=Response,
    responses={
        200: {"description": "The video.", "content": _VIDEOS, "headers": _ETAG},
        206: {"description": "The range of the video that was asked for.", "content": _VIDEOS, "headers": _ETAG},
        304: {"description": "The video has the ETag of If-None-Match."},
        307: {"description": "The video is at this signed URL of the object store, which is valid for an hour."},
        409: problem("The job has not ended.", RETRY_AFTER),
        410: problem("The job failed or was canceled, or its result was removed; `detail` says which."),
        416: problem("The video has no such range."),
        **NOT_FOUND,
    },
)
async def read_result(
    request: Request,
    job_id: UUID,
    v1: JobServiceDep,
    caller: CallerDep,
    range_: Annotated[str | None, Header(alias="Range", description="A range of bytes.")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", description="The ETag that the range is of.")] = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match", description="An ETag that is known.")] = None,
    redirect: Annotated[bool, Query(description="Whether the answer may be a redirect to the object store.")] = True,
) -> Response:
    """Return the video of a job that has succeeded."""
    job = await read.get(v1.database, caller.tenant, job_id)
    result = _result(job)
    etag, size = f'"{result.file.sha256}"', result.file.size
    headers = _headers(job, result, etag)
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    may_redirect = redirect and request.method != "HEAD"  # the signed URL is of GET only
    if may_redirect and (url := await v1.store.signed_url(result.file.key, SIGNED_SECONDS)):
        return RedirectResponse(url, 307, {"Cache-Control": "no-store"})
    try:
        span = parse_range(range_, if_range, etag, size) if request.method == "GET" else None
    except Unsatisfiable:
        return _unsatisfiable(size)
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        return Response(headers=headers)
    content = await _open(v1, result, start, end)
    return PacedStream(content, end - start, settings=v1.settings, status_code=206 if span else 200, headers=headers)


def _result(job: Job) -> JobResult:
    """Return the result of a job. Raises NotFinished, ResultGone."""
    if not job.state.is_final:
        raise NotFinished(f"the job is {job.state}; its result is there when it is {JobState.SUCCEEDED}")
    if job.state is not JobState.SUCCEEDED or job.result is None:
        raise ResultGone(_GONE.get(job.state, _REMOVED).format(job.error.detail if job.error else ""))
    return job.result


def _headers(job: Job, result: JobResult, etag: str) -> dict[str, str]:
    return {
        "Content-Type": f"video/{result.container}",
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",  # a cache asks whether the result is still there
        "Content-Disposition": f'attachment; filename="{job.id}.{result.container}"',
    }


def _unsatisfiable(size: int) -> Response:
    headers = {"Content-Range": f"bytes */{size}"}
    detail = f"Range: the video has {size} bytes, and none of this range"
    return JSONResponse({"detail": detail, "code": ErrorCode.RANGE_NOT_SATISFIABLE}, 416, headers)


async def _open(v1: JobService, result: JobResult, start: int, end: int) -> AsyncIterator[bytes]:
    try:
        return await v1.store.open_range(result.file.key, start, end)
    except MissingBlob as error:  # removed since the job was read
        raise ResultGone(_REMOVED) from error
