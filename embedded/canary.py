"""Tiny real calls that show whether a model still answers, by gRPC or by HTTP.

Triton goes on to report a model as ready after its process died or hung; only a real call shows it. Only the standard
library is imported at first, because Triton's container runs this file too, and has no gRPC for Python. Requests are
encoded here by hand: they are a dozen fixed tensors, and responses are not read.
"""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

UNHEALTHY = "is not healthy"  # Triton says so of a model whose process is dead or stopped
_SIZES = {"UINT8": 1, "INT32": 4, "FP32": 4, "FP64": 8}
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CHANNEL = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000))


class Outcome(Enum):
    """What became of a tiny call."""

    ANSWERED = "answered"
    DEAD = "the process of the model is dead"
    FAILED = "the model failed"
    ABSENT = "the server has no such model"
    UNKNOWN = "no answer"  # nobody listens, or the call ended without an answer


_GRPC_OUTCOMES = {"INTERNAL": Outcome.FAILED, "UNKNOWN": Outcome.FAILED, "NOT_FOUND": Outcome.ABSENT}
_HTTP_OUTCOMES = {
    http.client.OK: Outcome.ANSWERED,
    http.client.INTERNAL_SERVER_ERROR: Outcome.FAILED,
    http.client.NOT_FOUND: Outcome.ABSENT,
}
Call = Callable[[str, float], Outcome]  # of a model's name and a timeout in seconds


@dataclass(frozen=True)
class Input:
    """One input of a tiny call; zeros unless `data` is given."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = b""

    @property
    def raw(self) -> bytes:
        """Return the bytes of the tensor."""
        return self.data or bytes(prod(self.shape) * _SIZES[self.datatype])


_PICTURE = (1, 64, 64, 3)  # S3FD takes 30 ms of one core for it, a quarter of what 128 pixels cost
_BOX = Input("boxes", "INT32", (1, 4), struct.pack("<4i", 0, 0, 48, 48))
_FACE = Input("face", "UINT8", (1, 96, 96, 3))
_WINDOW = Input("mel", "FP32", (1, 80, 16))

# The smallest useful call of each model that has a process or a network of its own. Ensembles have neither.
# `avatar` and `live` answer in streams, and a rejected call would count as a failed request: of them only the processes
# are watched.
TINY_CALLS: Mapping[str, tuple[Input, ...]] = {
    "mel_spectrogram": (Input("audio", "FP32", (3200,)), Input("fps", "FP64", (1,), struct.pack("<d", 25.0))),
    "s3fd": (Input("image", "UINT8", _PICTURE),),
    "face_nms": (Input("boxes", "FP32", (1, 1024, 4)), Input("scores", "FP32", (1, 1024))),
    "face_crop": (Input("frames", "UINT8", _PICTURE), _BOX),
    "wav2lip": (_FACE, _WINDOW),
    "wav2lip_gan": (_FACE, _WINDOW),
    "face_paste": (Input("frames", "UINT8", _PICTURE), _BOX, Input("mouths", "UINT8", (1, 96, 96, 3))),
    "segmentation": (Input("image", "UINT8", _PICTURE[1:]),),
}


class GrpcCaller:
    """Makes tiny calls over one gRPC connection, from any thread."""

    def __init__(self, address: str) -> None:
        """Prepare the connection to `address`, host:port; the first call opens it."""
        import grpc  # here, because Triton's container does not have it

        self._grpc: Any = grpc
        self._channel = grpc.insecure_channel(address, options=_CHANNEL)
        self._infer = self._channel.unary_unary(_METHOD)  # without serializers: bytes in, bytes out

    def __call__(self, model: str, timeout: float) -> Outcome:
        """Call a model and wait at most `timeout` seconds."""
        try:
            self._infer(encode_request(model, TINY_CALLS[model]), timeout=timeout)
        except self._grpc.RpcError as error:
            if UNHEALTHY in (error.details() or ""):
                return Outcome.DEAD
            return _GRPC_OUTCOMES.get(error.code().name, Outcome.UNKNOWN)
        except ValueError:  # the channel was closed
            return Outcome.UNKNOWN
        return Outcome.ANSWERED

    def close(self) -> None:
        """End the calls in progress and close the connection."""
        self._channel.close()


class HttpCaller:
    """Makes tiny calls over HTTP, each over a connection of its own, from any thread."""

    def __init__(self, address: str) -> None:
        """Prepare calls to `address`, host:port."""
        self._address = address

    def __call__(self, model: str, timeout: float) -> Outcome:
        """Call a model and wait at most `timeout` seconds."""
        inputs = TINY_CALLS[model]
        head = _json_header(inputs)
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        connection = http.client.HTTPConnection(self._address, timeout=timeout)
        try:
            body = head + b"".join(each.raw for each in inputs)
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            return Outcome.UNKNOWN
        finally:
            connection.close()
        if response.status != http.client.OK and UNHEALTHY.encode() in text:
            return Outcome.DEAD
        return _HTTP_OUTCOMES.get(response.status, Outcome.UNKNOWN)

    def close(self) -> None:
        """Do nothing: every call closes its own connection."""


def encode_request(model: str, inputs: tuple[Input, ...]) -> bytes:
    """Return a `ModelInferRequest` of KServe's protocol as protobuf writes it."""
    parts = [_field(1, model.encode())]
    for each in inputs:
        shape = b"".join(map(_varint, each.shape))
        parts.append(_field(5, _field(1, each.name.encode()) + _field(2, each.datatype.encode()) + _field(3, shape)))
    return b"".join(parts + [_field(7, each.raw) for each in inputs])


def _field(number: int, payload: bytes) -> bytes:
    length_delimited = 2
    return _varint(number << 3 | length_delimited) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _json_header(inputs: tuple[Input, ...]) -> bytes:
    tensors = [
        {
            "name": each.name,
            "datatype": each.datatype,
            "shape": each.shape,
            "parameters": {"binary_data_size": len(each.raw)},
        }
        for each in inputs
    ]
    return json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
