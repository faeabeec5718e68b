"""Whether a starting server is ready: asked over gRPC, because HTTP is off."""

from __future__ import annotations

import grpc

from .ports import HOST, Ports
from .progress import read_page

_SECONDS = 5.0  # limit for an answer
_METHOD = "/inference.GRPCInferenceService/ServerReady"
_READY = b"\x08\x01"  # a ServerReadyResponse whose only field, `ready`, is true


def is_ready(ports: Ports) -> bool:
    """Return whether every model is ready and every port answers.

    The server opens the metrics port last, so that is asked first: a gRPC channel whose connection fails tries again
    only after a second, and then after ever longer pauses.
    """
    return read_page(f"{HOST}:{ports.metrics}", _SECONDS) is not None and _says_ready(ports.grpc)


def _says_ready(port: int) -> bool:
    with grpc.insecure_channel(f"{HOST}:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
        server_ready = channel.unary_unary(_METHOD)  # without serializers: bytes in, bytes out
        try:
            return bool(server_ready(b"", timeout=_SECONDS) == _READY)
        except grpc.RpcError:
            return False
