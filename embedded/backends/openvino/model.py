"""Triton backend `openvino`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.xml`, or
`default_model_filename`) and the parameters `INFERENCE_NUM_THREADS`, `NUM_STREAMS`, `PERFORMANCE_HINT` and
`HINT_BF16`. Two differences from the native one (docs/adr/0010): batches are not padded to `max_batch_size`,
and FP32 networks run in FP32 even on CPUs with bf16.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np

# OpenVINO reports its use over the network on import, unless its reporter cannot be imported
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino
import triton_python_backend_utils as pb_utils

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.cpu import threads_per_model
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.python_backend import BatchExecutor, check_names


class Compiled:
    """A network compiled for the CPU."""

    def __init__(self, config: BackendConfig) -> None:
        path = config.path("model.xml")
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        self._compiled = openvino.Core().compile_model(path, "CPU", _properties(config))
        self._request = self._compiled.create_infer_request()
        self._shapes = {port.get_any_name(): port.get_partial_shape() for port in self._compiled.inputs}
        self.inputs = list(self._shapes)
        self.outputs = [port.get_any_name() for port in self._compiled.outputs]

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        for name, array in feeds.items():
            shape = self._shapes[name]
            if not shape.compatible(openvino.PartialShape(list(array.shape))):
                raise InvalidInput(f"{name}: {shape.to_string()} expected, got {list(array.shape)}")
        # inputs are not copied; outputs are, because the next run reuses the request's buffers
        tensors = {name: openvino.Tensor(np.ascontiguousarray(array), True) for name, array in feeds.items()}
        self._request.infer(tensors)
        outputs = [self._request.get_tensor(name).data.copy() for name in requested]
        if large:  # otherwise the network keeps its peak memory
            self._request = None
            self._compiled.release_memory()
            self._request = self._compiled.create_infer_request()
        return outputs


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = BackendConfig(args)
        try:
            compiled = Compiled(config)
            check_names(config, compiled)
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._executor = BatchExecutor(pb_utils, config, compiled)

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        return self._executor.execute(requests)


def _properties(config: BackendConfig) -> dict[str, object]:
    properties: dict[str, object] = {
        # otherwise a CPU with bf16 would run FP32 networks in bf16: 25 dB for mouths instead of 90
        "INFERENCE_PRECISION_HINT": "bf16" if config.parameter("HINT_BF16").lower() == "yes" else "f32",
        "CPU_DENORMALS_OPTIMIZATION": True,  # mostly zero weights produce denormals, which slow a CPU down ten times
        "PERFORMANCE_HINT": config.parameter("PERFORMANCE_HINT").upper() or "LATENCY",
    }
    if threads := config.number("INFERENCE_NUM_THREADS", threads_per_model()):
        properties["INFERENCE_NUM_THREADS"] = threads
    if streams := config.parameter("NUM_STREAMS"):
        properties["NUM_STREAMS"] = streams.upper()
    return properties
