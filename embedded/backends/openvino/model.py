"""Triton backend `openvino`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.xml`, or
`default_model_filename`) and the parameters `INFERENCE_NUM_THREADS`, `NUM_STREAMS`, `PERFORMANCE_HINT` and
`HINT_BF16`. Three differences from the native one (docs/adr/0010): batches are not padded to `max_batch_size`,
FP32 networks run in FP32 even on CPUs with bf16, and the rows of a batch are divided among the cores.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import pairwise

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
from lipsync.triton.pipelined_executor import PipelinedExecutor
from lipsync.triton.python_backend import BatchExecutor, check_names

ROWS_PER_STREAM = 8  # of the largest batch; so few rows still keep a core busy
SLOTS = 2  # one is filled while the parts of the other run


class Network:
    """A network that can be compiled for the CPU."""

    def __init__(self, config: BackendConfig) -> None:
        self._path = config.path("model.xml")
        if not self._path.is_file():
            raise ValueError(f"{self._path} is missing")
        self._core, self._properties = openvino.Core(), _properties(config)

    def compile(self, **properties: object) -> openvino.CompiledModel:
        """Return it compiled with the properties of the config, and with these."""
        return self._core.compile_model(self._path, "CPU", {**self._properties, **properties})


class Compiled:
    """A network whose runs take all cores, one after another."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._shapes = {port.get_any_name(): port.get_partial_shape() for port in compiled.inputs}
        self.inputs = list(self._shapes)
        self.outputs = [port.get_any_name() for port in compiled.outputs]

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


class Streams:
    """Runs parts of batches at the same time, each on its own cores.

    Threads that share one run wait for each other in every layer, and much longer where jobs and encoders use the same
    cores. Threads that run parts of a batch never wait for each other, and a core that is done with its part goes on
    with the next batch. The process ends after the parts that run.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads = ThreadPoolExecutor(count, "streams")
        all_wait = threading.Barrier(count)  # makes each start its thread: if one is refused, the model does not load
        wait([self._threads.submit(all_wait.wait) for _ in range(count)])
        self._running: set[Future[None]] = set()

    def start(self, request: openvino.InferRequest) -> Future[None]:
        """Run a part as soon as a core is free."""

        def run() -> None:
            request.start_async()  # the threads of this pool only wait; OpenVINO's compute
            request.wait()

        part = self._threads.submit(run)
        self._running = {*self._running, part}  # not changed in place: a failed batch is repeated by another thread
        return part

    def wait_for_free_core(self) -> None:
        """Wait until a new part would run at once."""
        while len(self._running) >= self.count:
            self._running = wait(self._running, return_when=FIRST_COMPLETED).not_done


class StreamSlot:
    """Buffers of one batch, whose parts run in streams. Too few rows for that are left to all cores together.

    Such a batch is one of `live`, or the first or last of a job: its caller waits for it.
    """

    def __init__(
        self,
        whole: openvino.CompiledModel,
        divided: openvino.CompiledModel,
        streams: Streams,
        config: BackendConfig,
    ) -> None:
        self._whole = whole.create_infer_request()
        self._divided = [divided.create_infer_request() for _ in range(streams.count)]
        self._streams = streams
        rows = config.max_batch_size
        self.inputs, self.outputs = (
            {spec.name: np.zeros((rows, *spec.shape), spec.dtype) for spec in specs}
            for specs in (config.input_specs, config.output_specs)
        )
        self._parts: list[Future[None]] = []

    def launch(self, rows: int) -> None:
        """Start the network on the first `rows` rows, and wait until the next batch could run, too."""
        self._parts = []
        if rows < 2 * self._streams.count:
            self._bind(self._whole, 0, rows)
            self._whole.infer(share_outputs=True)  # they are in the buffers
            return
        ends = [rows * i // self._streams.count for i in range(self._streams.count + 1)]
        for request, (start, stop) in zip(self._divided, pairwise(ends), strict=True):
            self._bind(request, start, stop)
        try:
            for request in self._divided:
                self._parts.append(self._streams.start(request))
        except BaseException:
            wait(self._parts)  # they use the buffers, which are free after this
            raise
        self._streams.wait_for_free_core()

    def wait(self) -> None:
        """Wait until the outputs are in their buffers. Raises the error of a part."""
        wait(self._parts)  # all of them, also if one fails: the next batch uses the buffers again
        for part in self._parts:
            part.result()

    def _bind(self, request: openvino.InferRequest, start: int, stop: int) -> None:
        """Make a request read and write these rows of the buffers."""
        for name, array in (*self.inputs.items(), *self.outputs.items()):
            request.set_tensor(name, openvino.Tensor(array[start:stop], True))


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        try:
            self._executor = make_executor(BackendConfig(args))
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse] | None:
        return self._executor.execute(requests)

    def finalize(self) -> None:
        self._executor.close()


def make_executor(config: BackendConfig) -> BatchExecutor | PipelinedExecutor:
    """Load a model and return what answers its requests.

    Raises:
        ValueError: the model cannot be loaded as configured.
    """
    network = Network(config)
    whole = network.compile()
    runtime = Compiled(whole)
    check_names(config, runtime)
    count = _streams(config)
    if count < 2:
        return BatchExecutor(pb_utils, config, runtime)
    divided = network.compile(PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=str(count))
    streams = Streams(count)
    slots = [StreamSlot(whole, divided, streams, config) for _ in range(SLOTS)]
    return PipelinedExecutor(pb_utils, config, slots)


def _streams(config: BackendConfig) -> int:
    """Return how many parts of a batch run at the same time; 1 if the network's rows are of no fixed size.

    Such a row, a whole image, keeps all cores busy, and takes memory for its size.
    """
    if not config.fixed:
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
