"""Slots in PyTorch: static buffers, and for each bucket a program on their first rows.

`CpuDevice` and `CudaDevice` are what differs: where buffers are, and how a program is started and awaited. The rest,
and everything that uses slots, is the same code on both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...arrays import Array
from ..backend_config import TensorSpec
from ..buckets import bucket_of
from . import cuda_graph
from .cuda_graph import Step

Net = Callable[..., Tensor | tuple[Tensor, ...]]


class Program(Protocol):
    """A network on static buffers of one size."""

    def launch(self) -> None:
        """Start it. On a GPU this returns at once."""
        ...

    def wait(self) -> None:
        """Wait until the outputs are in their buffers. Raises the error of the last launch."""
        ...


class Device(Protocol):
    """What a slot needs of its device."""

    def empty(self, shape: Sequence[int], dtype: np.dtype[np.generic]) -> Tensor:
        """Return a buffer in the host's memory that the device reads and writes fast."""
        ...

    def program(self, net: Net, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
        """Return a program from and to these buffers. The programs of one device never run at the same time."""
        ...


class TorchSlot:
    """Buffers of one batch in flight, with a program for each bucket.

    Rows between the batch and its bucket hold what was there before: rows do not influence each other, and those are
    never sent.

    Args:
        device: of this slot alone.
        nets: the network for each bucket, ascending; the last one is the largest batch.
        inputs: in the order of the network's arguments.
        outputs: in the order of its results.
    """

    def __init__(
        self, device: Device, nets: Mapping[int, Net], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._buckets = tuple(nets)
        rows = self._buckets[-1]
        into, out = (
            {spec.name: device.empty((rows, *spec.shape), _dtype(spec)) for spec in s} for s in (inputs, outputs)
        )
        self.inputs: Mapping[str, Array] = {name: tensor.numpy() for name, tensor in into.items()}
        self.outputs: Mapping[str, Array] = {name: tensor.numpy() for name, tensor in out.items()}
        # the largest first: on a GPU the smaller ones then fit into the memory that it took
        self._programs = {
            size: device.program(nets[size], [t[:size] for t in into.values()], [t[:size] for t in out.values()])
            for size in reversed(self._buckets)
        }
        self._running: Program | None = None

    def launch(self, rows: int) -> None:
        """Start the network on the first rows; `rows` is at most the largest bucket."""
        self._running = self._programs[bucket_of(rows, self._buckets)]
        self._running.launch()

    def wait(self) -> None:
        """Wait for the last launch. Raises its error."""
        if self._running:
            self._running.wait()


class CpuDevice:
    """A CPU. The network runs in `wait`, so in the thread that answers, while the next batch is copied."""

    def empty(self, shape: Sequence[int], dtype: np.dtype[np.generic]) -> Tensor:
        """Return a buffer."""
        return torch.from_numpy(np.zeros(shape, dtype))

    def program(self, net: Net, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
        """Return a program from and to these buffers."""
        return _CpuProgram(lambda: _copy_results(net(*inputs), outputs))


class CudaDevice:
    """A stream of a GPU, with memory of its own: two slots run at the same time, so they must not share any.

    Args:
        index: the GPU.
        graphs: whether programs are captured as CUDA graphs, which one call starts.
        on_refusal: takes the reason if a program cannot be captured. It then runs kernel by kernel, as do all others.
    """

    def __init__(self, index: int, *, graphs: bool, on_refusal: Callable[[str], None]) -> None:
        self._device = torch.device("cuda", index)
        self._graphs, self._on_refusal = graphs, on_refusal
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._static: list[Tensor] = []

    def empty(self, shape: Sequence[int], dtype: np.dtype[np.generic]) -> Tensor:
        """Return a buffer in pinned memory."""
        return torch.from_numpy(np.zeros(shape, dtype)).pin_memory()

    def program(self, net: Net, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
        """Return a program: copies to the GPU, the network, copies back, all on this device's stream."""
        if not self._static:  # by the first and largest program
            self._static = [torch.empty_like(tensor, device=self._device, pin_memory=False) for tensor in inputs]
        static = [whole[: len(tensor)] for whole, tensor in zip(self._static, inputs, strict=True)]

        def step() -> None:
            for on_gpu, tensor in zip(static, inputs, strict=True):
                on_gpu.copy_(tensor, non_blocking=True)
            _copy_results(net(*static), outputs)

        if not self._graphs:
            return cuda_graph.eager(step, self._stream)
        return cuda_graph.captured(step, self._stream, self._pool, self._refuse)

    def _refuse(self, reason: str) -> None:
        self._graphs = False
        self._on_refusal(reason)


class _CpuProgram:
    def __init__(self, step: Step) -> None:
        self._step = step

    def launch(self) -> None:
        pass

    def wait(self) -> None:
        with torch.inference_mode():
            self._step()


def _copy_results(results: Tensor | tuple[Tensor, ...], outputs: Sequence[Tensor]) -> None:
    """Copy what a network returned into the buffers of the outputs; to pinned memory without waiting."""
    tensors = results if isinstance(results, tuple) else (results,)
    for output, tensor in zip(outputs, tensors, strict=True):
        if tensor.shape != output.shape:  # `copy_` would repeat a single row
            raise RuntimeError(f"the network returned {list(tensor.shape)}, the config has {list(output.shape)}")
        output.copy_(tensor.contiguous(), non_blocking=True)


def _dtype(spec: TensorSpec) -> np.dtype[np.generic]:
    if spec.dtype is None:
        raise ValueError(f"{spec.name}: a type of a fixed size expected")
    return spec.dtype
