"""What the errors of the model `live`, and the ends of its streams, mean for a caller and for the pool of servers."""

from __future__ import annotations

import re

from tritonclient.utils import InferenceServerException

from ..errors import AvatarError, Busy, ClientError, FaceNotFound, InvalidField, ShuttingDown, TooLarge, Unavailable
from .readiness import fault_of

_WITH_STATUS = re.compile(r"(?P<status>[45]\d\d) (?P<detail>.*)", re.DOTALL)
_OF_FIELD = re.compile(r"(?P<field>[A-Za-z_]{2,40}): (?P<reason>.*)", re.DOTALL)
_FULL = ("limit of ", "other live sessions ")  # how the sentences of a server without a place begin
_STOPPING = str(ShuttingDown())


class AvatarForgotten(ClientError):
    """No server has the prepared avatar that a session was to use."""

    status = 404
    code = "avatar_not_found"


def error_of(message: str) -> AvatarError:
    """Return what an error of the model, or of Triton, means."""
    found = _WITH_STATUS.fullmatch(message)
    if found is None:  # Triton's own words: the model is not there, or its process has died
        error = fault_of(message) or Unavailable("live cannot be reached")
        error.__cause__ = cause("NOT_FOUND", message)
        return error
    status, detail = int(found["status"]), found["detail"]
    if status >= 500:
        return _of_server(status, detail)
    return _of_caller(status, detail)


def _of_server(status: int, detail: str) -> AvatarError:
    if status != Unavailable.status:
        error: AvatarError = AvatarError(detail)
    elif detail.startswith(_FULL):
        error = Busy(detail)
    else:
        error = ShuttingDown() if detail == _STOPPING else Unavailable(detail)
    error.__cause__ = cause("RESOURCE_EXHAUSTED", detail)  # it goes on to serve others
    return error


def _of_caller(status: int, detail: str) -> ClientError:
    if detail == str(FaceNotFound()):
        return FaceNotFound()
    if status == AvatarForgotten.status:
        return AvatarForgotten(detail)
    if status == TooLarge.status:
        return TooLarge(detail)
    field = _OF_FIELD.fullmatch(detail)
    return InvalidField(field["field"], field["reason"]) if field else ClientError(detail)


def cause(code: str, message: str = "") -> InferenceServerException:
    """Return a cause by which `server_pool` knows what to do with the server."""
    return InferenceServerException(message or code, status=f"StatusCode.{code}")


def lost(code: str, *, was_started: bool) -> Unavailable:
    """Return the error of a session whose stream has ended by itself."""
    reason = code.lower().replace("_", " ")
    if not was_started:
        return Unavailable(f"live cannot be reached ({reason})")
    return Unavailable(f"the live session is lost with its Triton ({reason}); start a new one", retry_after=1)
