"""Triton backend `pytorch`, run by the Python backend, because NVIDIA's wheel has no native one.

It uses the names of the native backend, so that one repository works with both: the file (`model.pt`, or
`default_model_filename`) and the parameters `INTRA_OP_THREAD_COUNT` and `INTER_OP_THREAD_COUNT`. As with
the native one, inputs are the arguments of `forward`, by name, and outputs are its results, in the config's order.

On a GPU the rows of all requests are gathered in pinned memory and copied in one non-blocking copy, on this
instance's own stream. The export itself decides its precision and memory format (FP16, channels-last).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

from lipsync.arrays import Array
from lipsync.errors import InvalidInput
from lipsync.triton.cpu import threads_per_model
from lipsync.triton.pb_utils import InferenceRequest, InferenceResponse
from lipsync.triton.python_backend import BackendConfig, BatchExecutor


class Module:
    """A TorchScript module on one device."""

    def __init__(self, config: BackendConfig, device: torch.device) -> None:
        path = config.path("model.pt")
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch deprecates TorchScript, but these files exist
            module = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
            schema = module.forward.schema
            self._module = torch.jit.freeze(module)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.inputs = [argument.name for argument in schema.arguments[1:]]  # the first is the module itself
        self.outputs = config.outputs  # by position: a module's outputs have no names
        self._config = config

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            tensors = [self._to_device(feeds[name]) for name in self.inputs]
            try:
                result = self._module(*tensors)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except RuntimeError as error:  # shapes that do not fit each other, or are too small
                raise InvalidInput(f"{_shapes(feeds)}: {_reason(error)}") from error
            outputs = result if isinstance(result, tuple) else (result,)
            named = dict(zip(self._config.outputs, outputs, strict=True))
            arrays = [self._to_host(named[name]) for name in requested]
            if self._stream:
                self._stream.synchronize()  # wait for the copies to the host
                if large:
                    torch.cuda.empty_cache()
        return arrays

    def _to_device(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._stream else tensor

    def _to_host(self, tensor: torch.Tensor) -> Array:
        if not self._stream:
            return np.asarray(tensor.contiguous().numpy())
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        return np.asarray(pinned.numpy())


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = BackendConfig(args)
        torch.set_flush_denormal(True)  # mostly zero weights produce denormals, which slow a CPU down ten times
        try:
            if threads := config.number("INTRA_OP_THREAD_COUNT", threads_per_model()):
                torch.set_num_threads(threads)
            torch.set_num_interop_threads(config.number("INTER_OP_THREAD_COUNT", 1))
            module = Module(config, _device(args))
            config.check(module)
        except (ValueError, RuntimeError) as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._executor = BatchExecutor(pb_utils, config, module)

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        return self._executor.execute(requests)


def _device(args: Mapping[str, str]) -> torch.device:
    if args["model_instance_kind"] != "GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("KIND_GPU is configured, but PyTorch finds no GPU")
    torch.backends.cudnn.benchmark = True  # few shapes, each run often, so searching for the fastest kernel pays off
    return torch.device("cuda", int(args["model_instance_device_id"]))


def _reason(error: RuntimeError) -> str:
    """Return the last line of a TorchScript error, which has the reason; the lines before it are a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("RuntimeError: ") if lines else "the network does not accept these shapes"


def _shapes(feeds: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
