"""`/v1/avatars`: keep a face that many jobs use."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Request, Response

from avatar.errors import InvalidField, MachineFault, ShuttingDown
from avatar.form.parse import FILES, MAX_TEXT_BYTES, SEND_A_FILE, Form, Upload, parse
from avatar.inspection import FaceReport
from avatar.request import AvatarRequest, Background
from avatar.tracing import request_id
from jobs.quotas import check_stored
from jobs.records import StoredFile
from jobs.repository import avatars
from jobs.repository.avatars import Avatar, avatar_key
from lipsync.tensors import BACKGROUND, FACE_FILE, FACE_TYPE, SPEECH_FILE

from ..authentication import Caller
from ..cancellation import run_until_disconnect
from ..clients import client_of
from ..endpoint import RETRY_AFTER, FolderDep, ServiceDep, problem
from ..job_fields import storable
from ..job_service import JobService
from ..multipart import KnownFields
from ..openapi import AVATAR_FORM_NAME, reference
from ..service import Service
from ..uploads import receive_form
from . import cursors
from .endpoint import NOT_FOUND, PROBLEMS, CallerDep, JobServiceDep, operation_id
from .jobs import LOCATION, MAX_LIMIT
from .schemas import AvatarPage, AvatarView

router = APIRouter(prefix="/v1/avatars", tags=["avatars"], responses=PROBLEMS, generate_unique_id_function=operation_id)

_IMAGE, _VIDEO = "png", "mp4"  # in place of a type that was not sent: the content decides, and a GIF is a video
FIELDS = KnownFields({FACE_FILE: FILES[FACE_FILE]}, {FACE_TYPE: MAX_TEXT_BYTES})


@router.post(
    "",
    status_code=201,
    summary="Keep a face",
    responses={
        201: {"description": "The face is kept.", "headers": LOCATION},
        400: problem("A field is invalid, the file cannot be decoded, or no face is detected in it."),
        408: problem("Upload timed out: no data was received for too long, or the upload is too slow."),
        413: problem("The file exceeds the size limit."),
        415: problem("The body is compressed."),
        429: problem("A limit of this API key, or of this client address, is reached.", RETRY_AFTER),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": reference(AVATAR_FORM_NAME)}},
        }
    },
)
async def keep_avatar(
    request: Request,
    response: Response,
    service: ServiceDep,
    v1: JobServiceDep,
    caller: CallerDep,
    folder: FolderDep,
) -> AvatarView:
    """Keep an image or a video of a face, under an id that jobs name in their field `avatar`.

    It is decoded, and a face has to be detected in it: of a video, in its first frame.
    """
    if service.jobs.closed:
        raise ShuttingDown()
    await check_stored(v1.database, caller.tenant, caller.limits, 0)
    with v1.uploads.hold(client_of(request, service.settings.trusted_proxies)):
        receiving = receive_form(request, folder, service.settings, FIELDS)
        form = await run_until_disconnect(receiving, service.jobs.stopped)
        face, face_type = _read(form)
        looking = _look(service, _request(face, face_type, folder, service))
        report = await run_until_disconnect(looking, service.jobs.stopped, request.receive)
        await check_stored(v1.database, caller.tenant, caller.limits, face.size)
        avatar = await _keep(v1, caller, face, face_type or (_IMAGE if report.frames is None else _VIDEO), report)
    response.headers["Location"] = f"{router.prefix}/{avatar.id}"
    return AvatarView.of(avatar)


@router.get("", summary="List kept faces", responses={400: problem("A parameter is invalid.")})
async def list_avatars(
    v1: JobServiceDep,
    caller: CallerDep,
    cursor: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most faces of a page.")] = 50,
) -> AvatarPage:
    """Return the caller's kept faces, newest first, in pages."""
    found = await avatars.page(v1.database, caller.tenant, cursors.decode(cursor), limit + 1)
    following = cursors.encode(found[limit - 1].number) if len(found) > limit else None
    return AvatarPage(avatars=[AvatarView.of(avatar) for avatar in found[:limit]], next=following)


@router.get("/{avatar_id}", summary="Look at a kept face", responses=NOT_FOUND)
async def read_avatar(avatar_id: UUID, v1: JobServiceDep, caller: CallerDep) -> AvatarView:
    """Return what is known of a kept face."""
    return AvatarView.of(await avatars.get(v1.database, caller.tenant, avatar_id))


@router.delete(
    "/{avatar_id}",
    status_code=204,
    summary="Remove a kept face",
    responses={409: problem("A job that has not ended uses the face."), **NOT_FOUND},
)
async def delete_avatar(avatar_id: UUID, v1: JobServiceDep, caller: CallerDep) -> Response:
    """Remove a kept face and its file."""
    await avatars.remove(v1.database, caller.tenant, avatar_id)
    with suppress(MachineFault):  # then the sweep removes the file: nothing names it any more
        await v1.store.delete([avatar_key(avatar_id)])
    return Response(status_code=204)


def _read(form: Form) -> tuple[Upload, str]:
    face = form.get(FACE_FILE)
    if not isinstance(face, Upload):
        raise InvalidField(FACE_FILE, SEND_A_FILE if face else "the field is missing")
    if not face.size:
        raise InvalidField(FACE_FILE, "the file is empty")
    return face, storable(form, FACE_TYPE).strip()


def _request(face: Upload, face_type: str, folder: Path, service: Service) -> AvatarRequest:
    """Return the request of a job with this face; its audio is never read."""
    form: Form = {
        FACE_FILE: face,
        SPEECH_FILE: face,
        FACE_TYPE: face_type or _VIDEO,
        BACKGROUND: Background.FROM_INPUT.value,
    }
    return parse(form, folder, request_id.get(), service.settings.limits)


async def _look(service: Service, request: AvatarRequest) -> FaceReport:
    async with service.jobs.slot():
        await service.machine.check_failing()
        await service.models.check_ready()
        return await service.inspect(request, service.models)


async def _keep(v1: JobService, caller: Caller, face: Upload, face_type: str, report: FaceReport) -> Avatar:
    """Store the file, then write the row; a file without a row is removed by the sweep."""
    identity = uuid4()
    key = avatar_key(identity)
    stored = await v1.store.put_file(key, face.path)
    await asyncio.to_thread(face.path.unlink)
    file = StoredFile(key, stored.size, stored.sha256)
    return await avatars.add(v1.database, identity, caller.tenant, file, face_type, asdict(report))
