"""Triton backend `onnxruntime`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.onnx`, or
`default_model_filename`) and the parameters `intra_op_thread_count` and `inter_op_thread_count`. On a GPU it uses
onnxruntime's CUDA provider; the accelerators of `--profile tensorrt` work only in NVIDIA's container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnxruntime
import triton_python_backend_utils as pb_utils
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.cpu import threads_per_model
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.python_backend import BatchExecutor, check_names

Provider = str | tuple[str, dict[str, str]]


class Session:
    """An onnxruntime session."""

    def __init__(self, config: BackendConfig, provider: Provider) -> None:
        path = config.path("model.onnx")
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        self._session = onnxruntime.InferenceSession(path, _options(config), providers=[provider])
        self._shrink_arena = onnxruntime.RunOptions()  # otherwise the session keeps its peak memory
        device = "cpu:0" if isinstance(provider, str) else f"gpu:{provider[1]['device_id']}"
        self._shrink_arena.add_run_config_entry("memory.enable_memory_arena_shrinkage", device)
        self.inputs = [tensor.name for tensor in self._session.get_inputs()]
        self.outputs = [tensor.name for tensor in self._session.get_outputs()]

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(requested, feeds, self._shrink_arena if large else None)
        except InvalidArgument as error:  # the graph does not accept these shapes
            raise InvalidInput(_sentence(error)) from None
        return outputs


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = BackendConfig(args)
        try:
            session = Session(config, _provider(args))
            check_names(config, session)
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._executor = BatchExecutor(pb_utils, config, session)

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        return self._executor.execute(requests)


def _provider(args: Mapping[str, str]) -> Provider:
    if args["model_instance_kind"] != "GPU":
        return "CPUExecutionProvider"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ValueError("KIND_GPU is configured, but this onnxruntime supports only CPUs; install onnxruntime-gpu")
    return ("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]})


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
