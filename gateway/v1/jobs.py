"""`/v1/jobs`: hand over a job, look at it, list jobs, cancel or remove one."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from avatar.errors import MachineFault
from jobs.records import Job, JobState
from jobs.repository import end, read
from jobs.views import JobView

from ..endpoint import RETRY_AFTER, FolderDep, ServiceDep, problem
from ..job_service import JobService
from ..openapi import JOB_FORM_NAME, JOB_JSON_NAME, reference
from . import cursors
from .endpoint import NOT_FOUND, PROBLEMS, CallerDep, JobServiceDep, operation_id
from .schemas import JobPage
from .submission import IDEMPOTENCY_KEY, Submitter

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=PROBLEMS, generate_unique_id_function=operation_id)

REPLAYED = "Idempotency-Replayed"
MAX_LIMIT = 200
LOCATION = {"Location": {"description": "Path of the job.", "schema": {"type": "string"}}}
ACCEPTED_HEADERS = LOCATION | {
    REPLAYED: {
        "description": f"`true` if an earlier request had the same {IDEMPOTENCY_KEY}; absent otherwise.",
        "schema": {"type": "boolean"},
    }
}


@router.post(
    "",
    status_code=202,
    summary="Hand over a job",
    response_model=JobView,
    responses={
        202: {"description": "The job, queued.", "headers": ACCEPTED_HEADERS},
        400: problem("A field is invalid; `detail` names it and the reason. The files are looked at by the job."),
        403: problem("The API key may not use this priority."),
        404: problem("The caller has kept no face with this id."),
        408: problem("Upload timed out: no data was received for too long, or the upload is too slow."),
        409: problem(f"The {IDEMPOTENCY_KEY} was used before, for a job with other content."),
        413: problem("A file exceeds the size limit."),
        415: problem("The body is compressed, or neither multipart/form-data nor application/json."),
        429: problem("A limit of this API key, or of this client address, is reached.", RETRY_AFTER),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": reference(JOB_FORM_NAME)},
                "application/json": {"schema": reference(JOB_JSON_NAME)},
            },
        },
        "parameters": [
            {
                "name": IDEMPOTENCY_KEY,
                "in": "header",
                "required": False,
                "description": "Makes a repetition safe: the same key with the same content gives the same job.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
    },
)
async def submit_job(
    request: Request, service: ServiceDep, v1: JobServiceDep, caller: CallerDep, folder: FolderDep
) -> Response:
    """Take in the fields of the form, or URLs in JSON, and return at once; a worker runs the job."""
    job, is_new = await Submitter(service, v1, caller, folder).submit(request)
    return await accepted(v1, job, is_new=is_new)


async def accepted(v1: JobService, job: Job, *, is_new: bool) -> JSONResponse:
    """Return the answer to a job that was handed over."""
    headers = {"Location": f"{router.prefix}/{job.id}"} | ({} if is_new else {REPLAYED: "true"})
    return JSONResponse((await view(v1, job)).model_dump(mode="json"), 202, headers)


async def view(v1: JobService, job: Job) -> JobView:
    """Return a job as its owner sees it, with its place in the queue and its webhooks."""
    deliveries = await read.deliveries(v1.database, job.id) if job.webhook else ()
    return JobView.of(job, await read.place(v1.database, job), deliveries)


@router.get(
    "", summary="List jobs", responses={400: problem("A parameter is invalid; `detail` names it and the reason.")}
)
async def list_jobs(
    v1: JobServiceDep,
    caller: CallerDep,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    cursor: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most jobs of a page.")] = 50,
) -> JobPage:
    """Return the caller's jobs, newest first, in pages."""
    found = await read.page(v1.database, caller.tenant, state, cursors.decode(cursor), limit + 1)
    following = cursors.encode(found[limit - 1].number) if len(found) > limit else None
    return JobPage(jobs=[JobView.of(job) for job in found[:limit]], next=following)


@router.get("/{job_id}", summary="Look at a job", responses=NOT_FOUND)
async def read_job(job_id: UUID, v1: JobServiceDep, caller: CallerDep) -> JobView:
    """Return the job: its state, its place in the queue, its progress, its result or error, and its webhooks."""
    return await view(v1, await read.get(v1.database, caller.tenant, job_id))


@router.delete(
    "/{job_id}",
    summary="Cancel or remove a job",
    response_model=JobView,
    responses={
        200: {"description": "The job is canceled now; with `remove=false` also a job that had ended, as it is."},
        204: {"description": "The job had ended; it is removed, with its files."},
        **NOT_FOUND,
    },
)
async def delete_job(
    job_id: UUID,
    v1: JobServiceDep,
    caller: CallerDep,
    remove: Annotated[bool, Query(description="Whether a job that has ended is removed.")] = True,
) -> Response:
    """Cancel a job that has not ended; remove one that has, unless the caller only wants to cancel."""
    job, canceled = await end.cancel(v1.database, caller.tenant, job_id)
    inputs = [file.key for file in job.inputs.values()]
    if canceled or not remove:
        if canceled and job.started_at is None:  # no worker has the files
            await _remove_or_leave(v1, inputs)
        return JSONResponse((await view(v1, job)).model_dump(mode="json"))
    await v1.store.delete([*inputs, *([job.result.file.key] if job.result else [])])
    await end.remove(v1.database, caller.tenant, job_id)
    return Response(status_code=204)


async def _remove_or_leave(v1: JobService, keys: list[str]) -> None:
    try:
        await v1.store.delete(keys)
    except MachineFault:
        return  # the sweep removes them: the job is canceled, whether or not the store responds
