"""Calls to the streaming models `avatar` and `live`, with only the generated stub of KServe's protocol."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

CALL_SECONDS = 300.0
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TYPES = {
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float32): "FP32",
}
NUMPY = {"UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32, "FP64": np.float64}


@dataclass
class Responses:
    """The responses to one request."""

    progress: list[tuple[str, int, int]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    frames: dict[int, dict[str, Any]] = field(default_factory=dict)
    session: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    segments: list[dict[str, Any]] = field(default_factory=list)
    cleared: dict[str, Any] | None = None
    error: str = ""

    @property
    def video(self) -> bytes:
        return b"".join(self.chunks)

    def add(self, response: pb.ModelStreamInferResponse) -> None:
        self.error = self.error or response.error_message
        tensors = outputs(response)
        if "stage" in tensors:
            self.progress.append((tensors["stage"], int(tensors["done"][0]), int(tensors["total"][0])))
        if "video" in tensors:
            self.chunks.append(tensors["video"].tobytes())
        if "index" in tensors:
            self.frames[int(tensors["index"][0])] = tensors
        if "session" in tensors:
            self.session = json.loads(tensors["session"])
        if "summary" in tensors:
            self.summary = json.loads(tensors["summary"])
        if "segment" in tensors:
            self.segments.append(json.loads(tensors["segment"]))
        if "cleared" in tensors:
            self.cleared = json.loads(tensors["cleared"])


@contextmanager
def stub(address: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        yield GRPCInferenceServiceStub(channel)


def make_request(model: str, identity: str = "", /, **inputs: bytes | str | np.ndarray) -> pb.ModelInferRequest:
    """Build a request. Bytes become UINT8, text becomes one BYTES element, arrays keep their type."""
    request = pb.ModelInferRequest(model_name=model, id=identity)
    for name, value in inputs.items():
        if isinstance(value, str):
            text = value.encode()
            request.inputs.add(name=name, datatype="BYTES", shape=[1])
            request.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        else:
            array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
            request.inputs.add(name=name, datatype=TYPES[array.dtype], shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
    return request


def outputs(response: pb.ModelStreamInferResponse) -> dict[str, Any]:
    """Return the outputs of a response by name: text or arrays."""
    tensors = {}
    pairs = zip(response.infer_response.outputs, response.infer_response.raw_output_contents, strict=True)
    for output, raw in pairs:
        if output.datatype == "BYTES":
            assert int.from_bytes(raw[:4], "little") == len(raw) - 4
            tensors[output.name] = raw[4:].decode()
        else:
            tensors[output.name] = np.frombuffer(raw, NUMPY[output.datatype]).reshape(output.shape)
    return tensors


def is_last(response: pb.ModelStreamInferResponse) -> bool:
    return response.infer_response.parameters["triton_final_response"].bool_param


def send_request(server: GRPCInferenceServiceStub, request: pb.ModelInferRequest) -> Responses:
    """Send one request on its own stream, and return all of its responses."""
    responses = Responses()
    for response in server.ModelStreamInfer(iter([request]), timeout=CALL_SECONDS):
        responses.add(response)
    return responses


class LiveConnection:
    """One caller of `live`: `send` sends a request, `receive` waits for all of its responses."""

    def __init__(self, server: GRPCInferenceServiceStub, sequence: int) -> None:
        self._sequence, self._sent, self._finished = sequence, 0, 0
        self._session_open = False
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self._stream = server.ModelStreamInfer(iter(self._requests.get, None), timeout=CALL_SECONDS)

    def send(self, *, start: bool = False, end: bool = False, **inputs: bytes | str | np.ndarray) -> str:
        """Send the next request and return its id. Every request gets a response, an END without audio too."""
        request = make_request("live", f"{self._sequence}-{self._sent}", **inputs)
        request.parameters["sequence_id"].int64_param = self._sequence
        request.parameters["sequence_start"].bool_param = start
        request.parameters["sequence_end"].bool_param = end
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        self._requests.put(request)
        self._sent += 1
        self._session_open = (self._session_open or start) and not end
        return request.id

    def receive(self, requests: int = 1) -> Responses:
        """Return the responses to the next `requests` of the requests that were sent."""
        responses = Responses()
        expected = self._finished + requests
        for response in self._stream:
            responses.add(response)
            # an error that Triton itself sends has no final flag
            self._finished += is_last(response) or bool(response.error_message)
            if self._finished == expected:
                break
        return responses

    def close(self) -> None:
        """End the session if it is open, so that it does not count in the next test, and close the stream."""
        if self._session_open:
            self.send(end=True, pcm=np.zeros(0, np.int16))
        with suppress(grpc.RpcError):
            if self._finished < self._sent:
                self.receive(self._sent - self._finished)
        self.cancel()

    def cancel(self) -> None:
        """Cancel the stream at once, like a client that disconnects."""
        self._requests.put(None)
        self._stream.cancel()
