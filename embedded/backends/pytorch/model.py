"""Triton backend `pytorch`, served by the Python backend: NVIDIA's wheel carries no native one.

It takes the native backend's names, so that one repository serves both: the file (`model.pt`, or
`default_model_filename`) and the parameters `INTRA_OP_THREAD_COUNT` and `INTER_OP_THREAD_COUNT`. As there, inputs
are the arguments of `forward`, by name, and outputs are what it gives back, in the config's order.

On a GPU the rows of all requests are gathered in pinned memory and go over in one copy that does not block, on a
stream of this instance's own; what an export computes in (FP16, channels-last) is the export's matter.
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
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is on its way out; these files are not
            module = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
            schema = module.forward.schema
            self._module = torch.jit.freeze(module)
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.inputs = [argument.name for argument in schema.arguments[1:]]  # the first is the module itself
        self.outputs = config.outputs  # by place: a module's outputs have no names
        self._config = config

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            tensors = [self._carry(feeds[name]) for name in self.inputs]
            try:
                answer = self._module(*tensors)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except RuntimeError as error:  # shapes that do not go together, or are too small
                raise InvalidInput(f"{_shapes(feeds)}: {_reason(error)}") from error
            outputs = answer if isinstance(answer, tuple) else (answer,)
            named = dict(zip(self._config.outputs, outputs, strict=True))
            arrays = [self._fetch(named[name]) for name in requested]
            if self._stream:
                self._stream.synchronize()  # the copies back have arrived
                if large:
                    torch.cuda.empty_cache()
        return arrays

    def _carry(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._stream else tensor

    def _fetch(self, tensor: torch.Tensor) -> Array:
        if not self._stream:
            return np.asarray(tensor.contiguous().numpy())
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        return np.asarray(pinned.numpy())


class TritonPythonModel:
    def initialize(self, args: Mapping[str, str]) -> None:
        config = BackendConfig(args)
        torch.set_flush_denormal(True)  # weights of mostly zeros make denormals, which slow a CPU ten times
        try:
            if threads := config.number("INTRA_OP_THREAD_COUNT", threads_per_model()):
                torch.set_num_threads(threads)
            torch.set_num_interop_threads(config.number("INTER_OP_THREAD_COUNT", 1))
            module = Module(config, _device(args))
            config.check(module)
        except (ValueError, RuntimeError) as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._batching = BatchExecutor(pb_utils, config, module)

    def execute(self, requests: Sequence[InferenceRequest]) -> list[InferenceResponse]:
        return self._batching.execute(requests)


def _device(args: Mapping[str, str]) -> torch.device:
    if args["model_instance_kind"] != "GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("KIND_GPU asked, but this PyTorch sees no GPU")
    torch.backends.cudnn.benchmark = True  # few shapes, each run often: the search for the fastest kernel pays
    return torch.device("cuda", int(args["model_instance_device_id"]))


def _reason(error: RuntimeError) -> str:
    """TorchScript tells where it was at length; why stands in its last line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("RuntimeError: ") if lines else "the network does not take them"


def _shapes(feeds: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
