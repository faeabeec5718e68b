"""Errors that the gateway itself raises, and the body of an error response.

    avatar.errors
    ├── ClientError         400  {"detail": message}
    │   ├── MalformedForm   400
    │   ├── UploadStalled   408
    │   └── TooLarge        413
    └── Unavailable         503  with Retry-After
        ├── Busy            503
        └── ShuttingDown    503
    ClientDisconnected      no response is sent; 499 in the log

Any other exception is a defect of the service: 500 {"detail": "internal error", "request_id": …}, with the traceback
in the log only. `gateway.error_handlers` maps the errors to responses.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from avatar.errors import ClientError

FACE_MISSING_AT = "X-Avatar-Face-Missing-At"
INTERNAL_ERROR = "InternalError"  # the `kind` label of every unexpected exception in the metrics
CLIENT_CLOSED_REQUEST = 499  # nginx's status; HTTP itself has none for this case


class MalformedForm(ClientError):
    """The body is not a readable multipart form."""


class UploadStalled(ClientError):
    """The client sent no data for longer than the upload timeout."""

    status = 408


class ClientDisconnected(Exception):
    """The client closed its connection; its work is cancelled."""


class Problem(BaseModel):
    """Body of an error response."""

    detail: str = Field(description="What is wrong, in one sentence; it names the form field where one is at fault.")
