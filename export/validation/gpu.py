"""Which exports this process can run on a GPU of this machine, to judge and to time them where they will be served."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lipsync.tensors import Model
from lipsync.triton.onnx_providers import CUDA, GpuRun

from ..variants import Format, Precision, Variant


@dataclass(frozen=True)
class Gpu:
    """A GPU, or none.

    Attributes:
        name: empty where there is none.
        formats: those that can be run on it here.
    """

    name: str = ""
    formats: Collection[Format] = ()

    def run_of(self, variant: Variant, model: Model) -> GpuRun | None:
        """Return how a variant is run on this GPU, or None if it is run on the CPU."""
        if variant.format not in self.formats:
            return None
        shapes = {tensor.name: tensor.shape for tensor in model.inputs}
        fixed = model.max_batch_size > 0 and all(size > 0 for shape in shapes.values() for size in shape)
        return GpuRun(shapes=shapes if fixed else None, half=variant.precision is Precision.FP16)


NO_GPU = Gpu()


def find() -> Gpu:
    """Return this machine's first GPU, as far as PyTorch sees one: without PyTorch for CUDA nothing runs on it here."""
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        return NO_GPU
    formats = {Format.TORCHSCRIPT}
    if CUDA in onnxruntime.get_available_providers():
        formats.add(Format.ONNX)
    return Gpu(torch.cuda.get_device_name(0), frozenset(formats))
