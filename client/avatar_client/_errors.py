"""The errors of calls, each with the HTTP status that means the same.

    AvatarClientError
    ├── InvalidRequest  4xx    the input is invalid; the same request would be rejected again
    ├── Unavailable     503    not reachable, not ready, busy, or no response in time; a later call may succeed
    │                   429    the caller, or its API key, has as much under way as it may have
    ├── ServerError     500    a defect of the server, or a response that cannot be read
    └── Cancelled       499    cancelled by this side

Files that cannot be read or written raise OSError, and unknown names raise TypeError or ValueError, as usual.
"""

from __future__ import annotations

import re

import grpc

RETRY_AFTER = 5.0  # seconds, where the server does not say it
_STATUS = re.compile(r"([45]\d\d) (.*)", re.DOTALL)
# in Triton's own errors; a server that stops unloads its models one after the other
_STOPPING = ("Server not ready", "Server is stopping", "Server exiting", "has no available versions")
_HTTP1 = ("http1.x", "Failed parsing HTTP/2")  # gRPC's words for a server that answers with HTTP/1
# gRPC's reasons why it cannot connect, and the same in plain words
_REASONS = {
    "Connection refused": "connection refused",
    "No route to host": "no route to the host",
    "Network is unreachable": "the network is unreachable",
    "DNS resolution failed": "the name is not known",
    "Domain name not found": "the name is not known",
    "Timeout occurred": "it does not answer",
    # so does Triton's port for HTTP, and a server that is being stopped
    "last error: UNAVAILABLE": "it closes the connection; Triton's port for gRPC is usually 8001",
    "connection attempt timed out": "it does not answer",
}
_BROKEN = "RST_STREAM"  # a proxy ends a stream in this way when it has lost the server


class AvatarClientError(Exception):
    """Base of the errors of calls.

    Attributes:
        message: a sentence for a person; it names the field or tensor where there is one.
        code: an HTTP status.
        error_code: the code that the gateway's `/v1` has sent, such as `too_many_queued`; empty without one.
    """

    def __init__(self, message: str, code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.error_code = ""


class InvalidRequest(AvatarClientError):
    """The input is invalid, as the message says."""

    def __init__(self, message: str, code: int = 400) -> None:
        super().__init__(message, code)


class Unavailable(AvatarClientError):
    """The server is not reachable, not ready or too busy, or did not respond in time.

    Attributes:
        retry_after: seconds after which another attempt makes sense.
    """

    def __init__(self, message: str, code: int = 503, retry_after: float = RETRY_AFTER) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class ServerError(AvatarClientError):
    """The server failed, or sent a response that cannot be read."""


class Cancelled(AvatarClientError):
    """The call was cancelled, or its client closed."""

    def __init__(self, message: str, code: int = 499) -> None:
        super().__init__(message, code)


def from_status(code: int, message: str, retry_after: float = RETRY_AFTER) -> AvatarClientError:
    """Return the error that an HTTP status means."""
    if code in (429, 503):
        return Unavailable(message, code, retry_after)
    if code == 499:
        return Cancelled(message, code)
    return InvalidRequest(message, code) if 400 <= code < 500 else ServerError(message, code)


def from_stream_error(text: str) -> AvatarClientError:
    """Return the error in a stream: `400 face_file: not an image`. Triton's own errors have no number in front."""
    if match := _STATUS.fullmatch(text):
        return from_status(int(match[1]), match[2])
    return Unavailable(text) if any(words in text for words in _STOPPING) else ServerError(text)


def is_lost(error: grpc.RpcError) -> bool:
    """Return whether this gRPC status says that the server cannot be reached."""
    status = error.code()
    return status == grpc.StatusCode.UNAVAILABLE or (
        status == grpc.StatusCode.INTERNAL and _BROKEN in (error.details() or "")
    )


def from_rpc_error(error: grpc.RpcError, address: str) -> AvatarClientError:
    """Return the error that the gRPC status of a call to `address` means."""
    status, details = error.code(), error.details() or "no reason given"
    if status == grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidRequest(details)
    if any(words in details for words in _HTTP1):
        return InvalidRequest(
            f"{address} speaks HTTP, not gRPC: it is a port of the gateway, or Triton's for HTTP or metrics; Triton's "
            "port for gRPC is usually 8001"
        )
    if is_lost(error):
        reason = next((plain for words, plain in _REASONS.items() if words in details), details)
        return Unavailable(f"{address} cannot be reached: {reason}")
    if status == grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_response(address)
    if status == grpc.StatusCode.CANCELLED:
        return Cancelled(f"the call was cancelled: {details}")
    return ServerError(details)


def no_response(address: str) -> AvatarClientError:
    """Return the error that no response came in time."""
    return Unavailable(f"{address} did not answer in time")
