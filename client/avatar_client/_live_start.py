"""Start live sessions, on one of several servers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc

from ._errors import Unavailable
from ._live import LiveSession
from ._messages import InputTensor
from ._rotation import Rotation

FULL = 503  # away, stopping, or at its limit of sessions; another server may have a place


def start_session(rotation: Rotation, first: Sequence[InputTensor]) -> LiveSession:
    """Start a session on the server whose turn it is, or on another one if that is away or full."""
    start, errors = time.monotonic(), list[Unavailable]()
    for server in rotation.each():
        try:
            return LiveSession(server, rotation.failed, first)
        except Unavailable as error:
            if error.code != FULL:  # the caller is at its limit, wherever it calls
                raise
            errors.append(error)
        if time.monotonic() > start + server.connection.timeout:
            break
    # that a server is full says more than that another one is away
    raise min(errors, key=lambda each: isinstance(each.__cause__, grpc.RpcError))
