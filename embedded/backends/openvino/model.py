"""Triton backend `openvino`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.xml`, or
`default_model_filename`) and the parameters `INFERENCE_NUM_THREADS`, `NUM_STREAMS`, `PERFORMANCE_HINT` and
`HINT_BF16`. Three differences from the native one (docs/adr/0010): batches are not padded to `max_batch_size`,
FP32 networks run in FP32 even on CPUs with bf16, and the rows of a batch are divided among the cores.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

# OpenVINO reports its use over the network on import, unless its reporter cannot be imported
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino
import triton_python_backend_utils as pb_utils

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.cpu import threads_per_model, usable_cores
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.python_backend import BatchExecutor, check_names


ROWS_PER_STREAM = 8  # of the largest batch; so few rows still keep a core busy


class Compiled:
    """A network compiled for the CPU."""

    def __init__(self, config: BackendConfig) -> None:
        path = config.path("model.xml")
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        core, properties = openvino.Core(), _properties(config)
        self._compiled = core.compile_model(path, "CPU", properties)
        streams = _streams(config)
        self._streams = Streams(core, path, properties, streams) if streams > 1 else None
        self._request = self._compiled.create_infer_request()
        self._shapes = {port.get_any_name(): port.get_partial_shape() for port in self._compiled.inputs}
        self.inputs = list(self._shapes)
        self.outputs = [port.get_any_name() for port in self._compiled.outputs]

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        for name, array in feeds.items():
            shape = self._shapes[name]
            if not shape.compatible(openvino.PartialShape(list(array.shape))):
                raise InvalidInput(f"{name}: {shape.to_string()} expected, got {list(array.shape)}")
        if self._streams and self._streams.serves(feeds):
            return self._streams.run(requested, feeds)
        # inputs are not copied; outputs are, because the next run reuses the request's buffers
        tensors = {name: openvino.Tensor(np.ascontiguousarray(array), True) for name, array in feeds.items()}
        self._request.infer(tensors)
        outputs = [self._request.get_tensor(name).data.copy() for name in requested]
        if large:  # otherwise the network keeps its peak memory
            self._request = None
            self._compiled.release_memory()
            self._request = self._compiled.create_infer_request()
        return outputs


class Streams:
    """The same network, compiled to run parts of a batch at the same time, each on its own cores.

    Threads that share one run wait for each other in every layer, and much longer where jobs and encoders use the same
    cores. Threads that run parts of a batch never wait. Too few rows for that are left to all cores together, because
    their caller (`live`) waits for them.
    """

    def __init__(self, core: openvino.Core, path: Path, properties: Mapping[str, object], count: int) -> None:
        several = {**properties, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(count)}
        compiled = core.compile_model(path, "CPU", several)
        self._requests = [compiled.create_infer_request() for _ in range(count)]

    def serves(self, feeds: Mapping[str, Array]) -> bool:
        """Return whether the batch has at least two rows for each part."""
        return len(next(iter(feeds.values()))) >= 2 * len(self._requests)

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Return the requested outputs in their order."""
        count = len(self._requests)
        split = {name: np.array_split(array, count) for name, array in feeds.items()}
        # kept until the runs have ended, because the inputs are not copied
        parts = [
            {name: openvino.Tensor(np.ascontiguousarray(arrays[i]), True) for name, arrays in split.items()}
            for i in range(count)
        ]
        with ExitStack() as runs:  # which waits for all, also if one fails: the next batch uses them again
            for request, part in zip(self._requests, parts, strict=True):
                request.start_async(part)
                runs.callback(request.wait)
        outputs = [[request.get_tensor(name).data for request in self._requests] for name in requested]
        return [np.concatenate(arrays) for arrays in outputs]


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


def _streams(config: BackendConfig) -> int:
    """Return how many parts of a batch run at the same time; 1 if the network's rows are of no fixed size.

    Such a row, a whole image, keeps all cores busy, and takes memory for its size.
    """
    if not all(spec.fixed for spec in config.input_specs):
        return 1
    threads = config.number("INFERENCE_NUM_THREADS", threads_per_model()) or usable_cores()
    return min(threads, config.max_batch_size // ROWS_PER_STREAM)


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
