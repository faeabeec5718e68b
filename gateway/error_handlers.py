"""Map each error to its HTTP response; `gateway.errors` shows the table."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from avatar.errors import ClientError, FaceNotFound, InvalidField, MachineFault, Unavailable
from avatar.faults import machine_fault
from jobs.errors import JobNotFound, NotFinished
from jobs.quotas import QuotaExceeded
from jobs.repository.read import NOT_FOUND

from .errors import CLIENT_CLOSED_REQUEST, FACE_MISSING_AT, ClientDisconnected
from .middleware import ERROR
from .service import Service

logger = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Register the handlers of all expected errors; `InternalErrorMiddleware` answers the unexpected ones."""
    app.add_exception_handler(ClientError, _client_error)
    app.add_exception_handler(Unavailable, _unavailable)
    for kind in (OSError, MemoryError, RuntimeError):
        app.add_exception_handler(kind, _machine_error)
    app.add_exception_handler(ClientDisconnected, _client_disconnected)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)


async def _client_error(request: Request, error: Exception) -> Response:
    _record(request, error)
    status = error.status if isinstance(error, ClientError) else 400
    logger.info("rejected with %d: %s", status, error)
    headers = {}
    if isinstance(error, FaceNotFound) and error.seconds is not None:
        headers[FACE_MISSING_AT] = f"{float(error.seconds):.3f}"
    if isinstance(error, NotFinished):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse({"detail": str(error)}, status, headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    _record(request, error)
    if isinstance(error, MachineFault):
        service: Service = request.app.state.service
        service.machine.record(error)
        logger.error("fault of this machine: %s (%s)", error.reason, error.__cause__ or "no other cause")
    else:
        logger.warning("unavailable: %s", error)
    status, after = (error.status, error.retry_after) if isinstance(error, Unavailable) else (503, 1)
    content = {"detail": str(error)} | ({"code": error.code} if isinstance(error, QuotaExceeded) else {})
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
        return await _client_error(request, JobNotFound(NOT_FOUND))
    reason = str(error.errors()[0]["msg"])
    return await _client_error(request, InvalidField(".".join(map(str, name)), reason[:1].lower() + reason[1:]))


async def _client_disconnected(request: Request, error: Exception) -> Response:
    _record(request, error)
    logger.info("the client disconnected; its work is cancelled")
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _record(request: Request, error: Exception) -> None:
    """Leave the error's class in the request's state, where the middleware counts it."""
    setattr(request.state, ERROR, type(error).__name__)
