"""Triton's module for Python-based backends, in this process: responses are recorded, in the order of their sending."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

FINAL = 1
Tensors: TypeAlias = Mapping[str, tuple[type[np.generic], Sequence[int]]]  # name to type and shape
TRITON_TYPES = {np.uint8: "TYPE_UINT8", np.int64: "TYPE_INT64", np.float32: "TYPE_FP32"}


@dataclass(frozen=True)
class Tensor:
    tensor_name: str
    array: np.ndarray

    def name(self) -> str:
        return self.tensor_name

    def as_numpy(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True)
class Error:
    message: str
    code: str = "INTERNAL"


@dataclass(frozen=True)
class Response:
    """Outputs, which are copied as Triton does it, or an error."""

    output_tensors: Sequence[Tensor] = ()
    error: Error | None = None

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        return {tensor.tensor_name: tensor.array for tensor in self.output_tensors}


@dataclass
class Request:
    """A request, and what it was answered."""

    arrays: Mapping[str, np.ndarray]
    outputs: Sequence[str]
    name: str = ""
    answers: list[Response] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    sent: threading.Event = field(default_factory=threading.Event)
    order: list[str] = field(default_factory=list)  # shared by the requests of a test
    broken: bool = False  # its response cannot be sent

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self.arrays.items()]

    def requested_output_names(self) -> Sequence[str]:
        return self.outputs

    def get_response_sender(self) -> Request:
        return self

    def send(self, response: Response, flags: int = 0) -> None:
        if self.broken:
            raise RuntimeError("Unable to send response. Response sender has been closed.")
        copies = [Tensor(tensor.tensor_name, tensor.array.copy()) for tensor in response.output_tensors]
        self.answers.append(Response(copies, response.error))
        self.flags.append(flags)
        self.order.append(self.name)
        self.sent.set()

    def answer(self, seconds: float = 20.0) -> Response:
        """Return its answer, once it is there."""
        assert self.sent.wait(seconds), f"request {self.name!r} got no answer"
        (answer,) = self.answers
        return answer


class _TritonError:
    INTERNAL, INVALID_ARG, CANCELLED = "INTERNAL", "INVALID_ARG", "CANCELLED"

    def __call__(self, message: str, code: str) -> Error:
        return Error(message, code)


class FakePbUtils:
    """What backends use of `triton_python_backend_utils`.

    Attributes:
        log: the lines that were logged, with their level.
    """

    TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL
    TritonError = _TritonError()
    Tensor = Tensor
    InferenceResponse = Response

    def __init__(self) -> None:
        self.log: list[str] = []
        levels = ("info", "warn", "error")
        self.Logger = SimpleNamespace(**{f"log_{level}": self._logger(level) for level in levels})

    def _logger(self, level: str) -> Any:
        return lambda message: self.log.append(f"{level}: {message}")


def backend_args(
    inputs: Tensors,
    outputs: Tensors,
    *,
    batch: int = 8,
    repository: str = "repository",
    device: str = "cpu",
    parameters: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return what Triton passes to `initialize` of a backend, for the model `net`."""
    config = {
        "max_batch_size": batch,
        "input": [_tensor(name, *kind) for name, kind in inputs.items()],
        "output": [_tensor(name, *kind) for name, kind in outputs.items()],
        "parameters": {name: {"string_value": value} for name, value in (parameters or {}).items()},
    }
    return {
        "model_config": json.dumps(config),
        "model_name": "net",
        "model_repository": repository,
        "model_version": "1",
        "model_instance_kind": "CPU" if device == "cpu" else "GPU",
        "model_instance_device_id": "0",
    }


def _tensor(name: str, dtype: type[np.generic], shape: Sequence[int]) -> dict[str, object]:
    return {"name": name, "data_type": TRITON_TYPES[dtype], "dims": list(shape)}
