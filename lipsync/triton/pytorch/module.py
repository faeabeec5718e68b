"""A TorchScript archive on one device, and runs of it whose rows may have any size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...arrays import Array
from ...errors import InvalidInput
from .. import sticky
from ..backend_config import BackendConfig

FILE = "model.pt"  # unless the configuration names another


class Module:
    """A TorchScript module on one device.

    On a GPU the rows of all requests are copied through pinned memory, on a stream of this module.

    Attributes:
        inputs: the names of the arguments of its `forward`, which are the inputs.
        outputs: the names of the configuration, by position: a module's outputs have no names.
        net: the module itself.
    """

    def __init__(self, config: BackendConfig, device: torch.device) -> None:
        path = config.path(FILE)
        if not path.is_file():
            raise ValueError(f"{path} is missing")
        self.inputs, self.net = _load(path, device)
        self.outputs = config.outputs
        self._name = config.name
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def run(self, requested: Sequence[str], feeds: Mapping[str, Array], *, large: bool) -> list[Array]:
        """Return the requested outputs. PyTorch keeps no memory on a CPU, so `large` changes nothing."""
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                return self._run(requested, feeds)
        except RuntimeError as error:
            if sticky.is_sticky(error):
                sticky.end_process(self._name, error)
            if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
                raise
            # shapes that do not fit each other, or are too small
            raise InvalidInput(f"{_shapes(feeds)}: {_reason(error)}") from error

    def _run(self, requested: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        result = self.net(*[self._to_device(feeds[name]) for name in self.inputs])
        outputs = result if isinstance(result, tuple) else (result,)
        named = dict(zip(self.outputs, outputs, strict=True))
        arrays = [self._to_host(named[name]) for name in requested]
        if self._stream:
            self._stream.synchronize()  # wait for the copies to the host
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


def _load(path: Path, device: torch.device) -> tuple[list[str], torch.jit.ScriptModule]:
    """Return the names of a module's arguments, and the module with its weights as constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch deprecates TorchScript, but these files exist
        module = torch.jit.load(path, map_location=device).eval()  # type: ignore[no-untyped-call]
        names = [argument.name for argument in module.forward.schema.arguments[1:]]  # the first is the module itself
        return names, torch.jit.freeze(module)


def _reason(error: RuntimeError) -> str:
    """Return the last line of a TorchScript error, which has the reason; the lines before it are a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("RuntimeError: ") if lines else "the network does not accept these shapes"


def _shapes(feeds: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
