"""What can go wrong with a call, each with the HTTP status that means the same.

    AvatarClientError
    ├── InvalidRequest       4xx    the input; the same again is refused again
    ├── Unavailable   503    not reached, not ready, busy, or silent for too long; a later call may do
    ├── ServerError        500    a defect of the server, or an answer that cannot be read
    └── Cancelled     499    given up by this side

Files that cannot be read or written raise OSError, and names that no function knows TypeError or ValueError, as ever.
"""

from __future__ import annotations

import re
from typing import Any

import grpc

RETRY_AFTER = 5.0  # seconds, where the server says nothing of it
_STATUS = re.compile(r"([45]\d\d) (.*)", re.DOTALL)


class AvatarClientError(Exception):
    """Base of the errors of calls.

    Attributes:
        message: a sentence for a person; it names the field or tensor where there is one.
        code: an HTTP status.
    """

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class InvalidRequest(AvatarClientError):
    """The input does not do, as the message says."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message, code)


class Unavailable(AvatarClientError):
    """The server cannot be reached, is not ready or too busy, or did not answer in time.

    Attributes:
        retry_after: seconds after which another try makes sense.
    """

    def __init__(self, message: str, code: int = 503, retry_after: float = RETRY_AFTER) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class ServerError(AvatarClientError):
    """The server failed, or gave an answer that is none."""


class Cancelled(AvatarClientError):
    """The call was cancelled, or its client closed."""

    def __init__(self, message: str, code: int = 499) -> None:
        super().__init__(message, code)


def from_status(code: int, message: str, retry_after: float = RETRY_AFTER) -> AvatarClientError:
    """The error that an HTTP status means."""
    if code == 503:
        return Unavailable(message, code, retry_after)
    if code == 499:
        return Cancelled(message, code)
    return InvalidRequest(message, code) if 400 <= code < 500 else ServerError(message, code)


def from_stream_error(text: str) -> AvatarClientError:
    """The error in a stream: `400 face_file: not a picture`. Triton's own have no number in front."""
    said = _STATUS.fullmatch(text)
    return from_status(int(said[1]), said[2]) if said else ServerError(text)


def from_rpc_error(error: Any, address: str) -> AvatarClientError:  # noqa: ANN401 - gRPC has no types
    """The error that the gRPC status of a call to `address` means."""
    status, said = error.code(), error.details() or "no reason given"
    if status == grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(said)
    if status == grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"{address} cannot be reached: {said}")
    if status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_response(address)
    if status == grpc.StatusCode.CANCELLED:
        return Cancelled(f"the call was cancelled: {said}")
    return ServerError(said)


def no_response(address: str) -> AvatarClientError:
    """Nothing was heard in time."""
    return Unavailable(f"{address} did not answer in time")
