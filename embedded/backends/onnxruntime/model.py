"""Triton backend `onnxruntime`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.onnx`, or
`default_model_filename`) and the parameters `intra_op_thread_count`, `inter_op_thread_count`, `cudnn_conv_algo_search`,
`arena_extend_strategy` and `gpu_mem_limit`. On a GPU it uses what is installed, CUDA or TensorRT
(`lipsync.triton.onnx_providers`); the parameter `execution_provider` (`auto`, `cuda`, `tensorrt`) is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnxruntime
import triton_python_backend_utils as pb_utils
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.triton import onnx_providers, sticky
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.cpu import threads_per_model
from lipsync.triton.onnx_providers import CPU, GpuRun, Installed, Provider
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.python_backend import BatchExecutor, check_names
from lipsync.triton.run_limits import CpuLimits, GpuLimits


class Session:
    """An onnxruntime session."""

    def __init__(self, config: BackendConfig, providers: Sequence[str | Provider]) -> None:
        path = config.path("model.onnx")
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        self._name = config.name
        self._session = onnxruntime.InferenceSession(path, _options(config), providers=list(providers))
        self._shrink_arena = onnxruntime.RunOptions()  # otherwise the session keeps its peak memory
        self._shrink_arena.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        self.outputs = [tensor.name for tensor in self._session.get_outputs()]

    @property
    def providers(self) -> list[str]:
        """The providers that were loaded."""
        loaded: list[str] = self._session.get_providers()
        return loaded

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(requested, feeds, self._shrink_arena if large else None)
        except InvalidArgument as error:  # the graph does not accept these shapes
            raise InvalidInput(_sentence(error)) from None
        except Exception as error:
            if sticky.is_sticky(error):
                sticky.end_process(self._name, error)
            raise
        return outputs


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = BackendConfig(args)
        on_gpu = args["model_instance_kind"] == "GPU"
        try:
            session = _on_gpu(config, int(args["model_instance_device_id"])) if on_gpu else Session(config, [CPU])
            check_names(config, session)
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._executor = BatchExecutor(pb_utils, config, session, GpuLimits(config) if on_gpu else CpuLimits())

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        return self._executor.execute(requests)


def _on_gpu(config: BackendConfig, device: int) -> Session:
    """Return a session on this GPU. Raises ValueError if onnxruntime cannot use it."""
    installed = Installed.find(onnxruntime.get_available_providers())
    run = GpuRun.of(config, device)
    providers = onnx_providers.gpu_providers(run, installed)
    onnx_providers.load_libraries(providers)
    session = Session(config, providers)
    with_what = onnx_providers.check_loaded(run, providers, session.providers, installed)
    pb_utils.Logger.log_info(f"{config.name}: onnxruntime {onnxruntime.__version__} on GPU {device} {with_what}")
    return session


def _options(config: BackendConfig) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.number("intra_op_thread_count", threads_per_model())
    options.inter_op_num_threads = config.number("inter_op_thread_count", 1)
    options.log_severity_level = 3  # errors only; warnings about the graph are for the exporter
    # idle threads of one model must not spin on cores that another model needs
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # networks with mostly zero weights produce denormals, which slow a CPU down ten times
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _sentence(error: Exception) -> str:
    """Return the first line of `text` from `[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : text`."""
    return str(error).split(" : ", 3)[-1].splitlines()[0]
