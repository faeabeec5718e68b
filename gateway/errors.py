"""Errors that the gateway itself raises, and the body of an error response.

    avatar.errors
    ├── ClientError         400  {"detail": message}
    │   ├── MalformedForm   400
    │   ├── Unauthorized    401  no valid API key (gateway.authentication)
    │   ├── ForbiddenPriority 403
    │   ├── UploadStalled   408
    │   ├── TooLarge        413
    │   ├── EncodedForm     415
    │   ├── UnsupportedType 415
    │   └── NoDatabase      501  the jobs of /v1 need one (jobs.errors has their other errors)
    └── Unavailable         503  with Retry-After
        ├── TooManyJobs     429  one client holds its share of the places
        ├── QuotaExceeded   429  the owner of an API key has as much as it may have (jobs.quotas)
        ├── Busy            503
        ├── MachineFault    503  FfmpegFault, StorageFault, ResourceFault, MarkFault; also made of OSErrors
        └── ShuttingDown    503
    ClientDisconnected      no response is sent; 499 in the log

Any other exception is a defect of the service: 500 {"detail": "internal error", "request_id": …}, with the traceback
in the log only. `gateway.error_handlers` maps the errors to responses. The errors of `/v1` also have a `code`.
"""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.types import Scope

from avatar.errors import ClientError, Unavailable

from .codes import KEY_LIMITS, ErrorCode

FACE_MISSING_AT = "X-Avatar-Face-Missing-At"
INTERNAL_ERROR = "InternalError"  # the `kind` label of every unexpected exception in the metrics
_VERSIONED = "/v1/"  # what the paths of jobs and kept faces start with
CLIENT_CLOSED_REQUEST = 499  # nginx's status; HTTP itself has none for this case


class MalformedForm(ClientError):
    """The body is not a readable multipart form."""

    code = ErrorCode.MALFORMED_BODY


def malformed(reason: str) -> MalformedForm:
    """Return the error of a body that is not a valid form."""
    return MalformedForm(f"invalid multipart form: {reason}")


class UploadStalled(ClientError):
    """The client sent no data for longer than the upload timeout, or sent it slower than the least rate."""

    status = 408
    code = ErrorCode.UPLOAD_TIMEOUT


class EncodedForm(ClientError):
    """The body is compressed: images and audio are compressed already, and a small body could become a huge one."""

    status = 415
    code = ErrorCode.UNSUPPORTED_ENCODING


class UnsupportedType(ClientError):
    """The body is neither a form nor JSON."""

    status = 415
    code = ErrorCode.UNSUPPORTED_TYPE


class NoDatabase(ClientError):
    """The service has no database, and so no jobs that are handed over."""

    status = 501
    code = ErrorCode.NO_DATABASE


class TooManyJobs(Unavailable):
    """One client has as many requests under way as one client may have.

    The status is 429, not 503: a balancer takes a server that answers 503 for a failing one.
    """

    status = 429
    code = ErrorCode.TOO_MANY_REQUESTS


class ClientDisconnected(Exception):
    """The client closed its connection; its work is cancelled."""


class Problem(BaseModel):
    """Body of an error response."""

    detail: str = Field(description="What is wrong, in one sentence; it names the form field where one is at fault.")
    code: ErrorCode | None = Field(
        None, description="The same for programs: in every error of `/v1`, and where a limit of an API key is reached."
    )


def error_body(path: str, detail: str, code: str) -> dict[str, str]:
    """Return the body of an error response.

    Those of the form have no code, as in the original service, unless a limit of an API key is reached.
    """
    return {"detail": detail} | ({"code": code} if path.startswith(_VERSIONED) or code in KEY_LIMITS else {})


def has_body(scope: Scope) -> bool:
    """Return whether the request has a body. To close its connection early cuts the client off from the response."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
