"""Calls to the streaming models, `avatar` and `live`, with nothing but the stub of KServe's protocol."""

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
TYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32", np.dtype(np.int16): "INT16"}
NUMPY = {"UINT8": np.uint8, "INT32": np.int32}


@dataclass
class Responses:
    """What one request was answered."""

    progress: list[tuple[str, int, int]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    frames: dict[int, dict[str, Any]] = field(default_factory=dict)
    session: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    error: str = ""

    @property
    def video(self) -> bytes:
        return b"".join(self.chunks)

    def add(self, answer: pb.ModelStreamInferResponse) -> None:
        self.error = self.error or answer.error_message
        given = outputs(answer)
        if "stage" in given:
            self.progress.append((given["stage"], int(given["done"][0]), int(given["total"][0])))
        if "video" in given:
            self.chunks.append(given["video"].tobytes())
        if "index" in given:
            self.frames[int(given["index"][0])] = given
        if "session" in given:
            self.session = json.loads(given["session"])
        if "summary" in given:
            self.summary = json.loads(given["summary"])


@contextmanager
def stub(address: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        yield GRPCInferenceServiceStub(channel)


def request(model: str, identity: str = "", /, **inputs: bytes | str | np.ndarray) -> pb.ModelInferRequest:
    """Bytes become UINT8, text one BYTES element, arrays what they are."""
    made = pb.ModelInferRequest(model_name=model, id=identity)
    for name, value in inputs.items():
        if isinstance(value, str):
            text = value.encode()
            made.inputs.add(name=name, datatype="BYTES", shape=[1])
            made.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
        else:
            array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
            made.inputs.add(name=name, datatype=TYPES[array.dtype], shape=array.shape)
            made.raw_input_contents.append(array.tobytes())
    return made


def outputs(answer: pb.ModelStreamInferResponse) -> dict[str, Any]:
    """Text, or arrays, by name."""
    given = {}
    pairs = zip(answer.infer_response.outputs, answer.infer_response.raw_output_contents, strict=True)
    for output, raw in pairs:
        if output.datatype == "BYTES":
            assert int.from_bytes(raw[:4], "little") == len(raw) - 4
            given[output.name] = raw[4:].decode()
        else:
            given[output.name] = np.frombuffer(raw, NUMPY[output.datatype]).reshape(output.shape)
    return given


def is_last(answer: pb.ModelStreamInferResponse) -> bool:
    return answer.infer_response.parameters["triton_final_response"].bool_param


def ask(server: GRPCInferenceServiceStub, asked: pb.ModelInferRequest) -> Responses:
    """One request on a stream of its own, to its end."""
    answers = Responses()
    for answer in server.ModelStreamInfer(iter([asked]), timeout=CALL_SECONDS):
        answers.add(answer)
    return answers


class LiveConnection:
    """One caller of `live`: `send` sends a request, `receive` waits for everything that answers it."""

    def __init__(self, server: GRPCInferenceServiceStub, sequence: int) -> None:
        self._sequence, self._sent, self._answered = sequence, 0, 0
        self._session_open = False
        self._requests: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
        self._stream = server.ModelStreamInfer(iter(self._requests.get, None), timeout=CALL_SECONDS)

    def send(self, *, start: bool = False, end: bool = False, **inputs: bytes | str | np.ndarray) -> str:
        """Send the next request and return its id. Every request is answered, an END without audio too."""
        made = request("live", f"{self._sequence}-{self._sent}", **inputs)
        made.parameters["sequence_id"].int64_param = self._sequence
        made.parameters["sequence_start"].bool_param = start
        made.parameters["sequence_end"].bool_param = end
        made.parameters["triton_enable_empty_final_response"].bool_param = True
        self._requests.put(made)
        self._sent += 1
        self._session_open = (self._session_open or start) and not end
        return made.id

    def receive(self, requests: int = 1) -> Responses:
        """Return the responses to the next `requests` of the requests that were sent."""
        responses = Responses()
        expected = self._answered + requests
        for response in self._stream:
            responses.add(response)
            # an error that Triton itself sends has no final flag
            self._answered += is_last(response) or bool(response.error_message)
            if self._answered == expected:
                break
        return responses

    def close(self) -> None:
        """End the session if it is open, so that its place is free for the next test, and close the stream."""
        if self._session_open:
            self.send(end=True, pcm=np.zeros(0, np.int16))
        with suppress(grpc.RpcError):
            if self._answered < self._sent:
                self.receive(self._sent - self._answered)
        self.cancel()

    def cancel(self) -> None:
        """Cancel the stream at once, as a client does that vanishes."""
        self._requests.put(None)
        self._stream.cancel()
