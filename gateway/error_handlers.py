"""Map each error to its HTTP response; `gateway.errors` shows the table."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from avatar.errors import ClientError, FaceNotFound, InvalidField, MachineFault, Unavailable
from avatar.faults import machine_fault
from jobs.errors import AvatarNotFound, JobNotFound, NotFinished
from jobs.repository.avatars import NOT_FOUND as NO_AVATAR
from jobs.repository.read import NOT_FOUND as NO_JOB

from .codes import ErrorCode
from .errors import CLIENT_CLOSED_REQUEST, FACE_MISSING_AT, ClientDisconnected, error_body
from .middleware import ERROR
from .service import Service

logger = logging.getLogger(__name__)

_NO_CALL = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}


def install(app: FastAPI) -> None:
    """Register the handlers of all expected errors; `InternalErrorMiddleware` answers the unexpected ones."""
    app.add_exception_handler(ClientError, _client_error)
    app.add_exception_handler(Unavailable, _unavailable)
    for kind in (OSError, MemoryError, RuntimeError):
        app.add_exception_handler(kind, _machine_error)
    app.add_exception_handler(ClientDisconnected, _client_disconnected)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _no_such_call)


async def _client_error(request: Request, error: Exception) -> Response:
    _record(request, error)
    status, code = (error.status, error.code) if isinstance(error, ClientError) else (400, ClientError.code)
    logger.info("rejected with %d: %s", status, error)
    headers = {}
    if isinstance(error, FaceNotFound) and error.seconds is not None:
        headers[FACE_MISSING_AT] = f"{float(error.seconds):.3f}"
    if isinstance(error, NotFinished):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(error_body(request.scope["path"], str(error), code), status, headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    _record(request, error)
    if isinstance(error, MachineFault):
        service: Service = request.app.state.service
        service.machine.record(error)
        logger.error("fault of this machine: %s (%s)", error.reason, error.__cause__ or "no other cause")
    else:
        logger.warning("unavailable: %s", error)
    status, code, after = 503, Unavailable.code, 1
    if isinstance(error, Unavailable):
        status, code, after = error.status, error.code, error.retry_after
    content = error_body(request.scope["path"], str(error), code)
    return JSONResponse(content, status, {"Retry-After": str(after)})


async def _machine_error(request: Request, error: Exception) -> Response:
    """Answer an error of the disk, or of descriptors, memory or threads; any other one is a defect."""
    fault = machine_fault(error)
    if fault is None:
        raise error
    return await _unavailable(request, fault)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    """Answer a parameter of the path or the query that FastAPI rejects; a path that names no id names nothing."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type
    place, *name = error.errors()[0]["loc"]
    if place == "path":
        of_avatar = "avatar_id" in name
        return await _client_error(request, AvatarNotFound(NO_AVATAR) if of_avatar else JobNotFound(NO_JOB))
    reason = str(error.errors()[0]["msg"])
    return await _client_error(request, InvalidField(".".join(map(str, name)), reason[:1].lower() + reason[1:]))


async def _no_such_call(request: Request, error: Exception) -> Response:
    """Answer a path or a method that the service does not have; those of `/v1` with a code."""
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type
    code = _NO_CALL.get(error.status_code)
    if code is None:
        return await http_exception_handler(request, error)
    return JSONResponse(error_body(request.scope["path"], error.detail, code), error.status_code, error.headers)


async def _client_disconnected(request: Request, error: Exception) -> Response:
    _record(request, error)
    logger.info("the client disconnected; its work is cancelled")
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _record(request: Request, error: Exception) -> None:
    """Leave the error's class in the request's state, where the middleware counts it."""
    setattr(request.state, ERROR, type(error).__name__)
