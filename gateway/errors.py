"""What the gateway itself can refuse, and how every error becomes an answer.

    avatar.errors
    ├── ClientError         400  {"detail": message}
    │   ├── MalformedForm   400
    │   ├── UploadStalled   408
    │   └── TooLarge        413
    └── Unavailable         503  and Retry-After
        ├── Busy            503
        └── ShuttingDown    503
    ClientGone              nobody is there to be answered; 499 in the log

Anything else is a defect of ours: 500 {"detail": "internal error", "request_id": …}, the traceback in the log only.
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from avatar.errors import ClientError, FaceNotFound, Unavailable

from .logging_config import request_id
from .middleware import ERROR

logger = logging.getLogger(__name__)

FACE_MISSING_AT = "X-Avatar-Face-Missing-At"
DEFECT = "Defect"  # the name of any unexpected exception among the metrics
CLIENT_GONE = 499  # nginx's number for it; no status of HTTP's own says this


class MalformedForm(ClientError):
    """The body is not a form that can be read."""


class UploadStalled(ClientError):
    """The rest of the form did not come in time."""

    status = 408


class ClientGone(Exception):
    """The client closed its connection; its work is dropped."""


class Problem(BaseModel):
    """An error answer."""

    detail: str = Field(description="What is wrong, for a person; it names the form field where there is one.")


async def _refused(request: Request, error: Exception) -> Response:
    _tell(request, error)
    status = error.status if isinstance(error, ClientError) else 400
    logger.info("refused with %d: %s", status, error)
    headers = {}
    if isinstance(error, FaceNotFound) and error.seconds is not None:
        headers[FACE_MISSING_AT] = f"{float(error.seconds):.3f}"
    return JSONResponse({"detail": str(error)}, status, headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    _tell(request, error)
    after = error.retry_after if isinstance(error, Unavailable) else 1
    logger.warning("unavailable: %s", error)
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(after)})


async def _gone(request: Request, error: Exception) -> Response:
    _tell(request, error)
    logger.info("the client is gone; its work is dropped")
    return Response(status_code=CLIENT_GONE)


def _tell(request: Request, error: Exception) -> None:
    setattr(request.state, ERROR, type(error).__name__)


def install(app: FastAPI) -> None:
    """Make `app` answer the errors above as the table says (a 500 is the business of `Defects`)."""
    app.add_exception_handler(ClientError, _refused)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(ClientGone, _gone)


class Defects:
    """Middleware: an unexpected exception becomes a plain 500; what happened stays in the log.

    It stands inside the CORS middleware, so that a browser may read this answer too. (Starlette's
    own handler for `Exception` stands outside of it, and raises the exception again.)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            scope["state"][ERROR] = DEFECT
            if started:  # too late for another answer: let the server cut the connection
                raise
            logger.exception("internal error")
            answer = JSONResponse({"detail": "internal error", "request_id": request_id.get()}, 500)
            await answer(scope, receive, send)
