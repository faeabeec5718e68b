"""Find this machine's GPU, and run exports on it as the embedded server's backends do."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch

from lipsync.tensors import Model
from lipsync.triton import onnx_providers
from lipsync.triton.onnx_providers import CUDA, GpuRun, Installed

from ..errors import ExportError
from ..formats import onnx_model, torchscript
from ..variants import Format, Precision, Variant
from .gpu import NO_GPU, Gpu
from .runtimes import Run, pytorch


def find() -> Gpu:
    """Return this machine's first GPU, as far as PyTorch sees one: without PyTorch for CUDA nothing runs on it here."""
    if not torch.cuda.is_available():
        return NO_GPU
    loaders = {Format.TORCHSCRIPT: load_torchscript}
    if CUDA in onnxruntime.get_available_providers():
        loaders[Format.ONNX] = load_onnx
    return Gpu(torch.cuda.get_device_name(0), loaders)


def load_torchscript(model: Model, path: Path, variant: Variant) -> Run:
    """Load an archive onto the GPU. Raises ExportError if PyTorch cannot."""
    try:
        return pytorch(torchscript.load(path)[0], "cuda:0")
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        raise ExportError(f"{path}: PyTorch cannot load it onto the GPU: {error}") from error


def load_onnx(model: Model, path: Path, variant: Variant) -> Run:
    """Load a file into onnxruntime on the GPU. Raises ExportError if onnxruntime cannot use it."""
    run = onnx_run(model, variant)
    installed = Installed.find(onnxruntime.get_available_providers())
    try:
        providers = onnx_providers.gpu_providers(run, installed)
        onnx_providers.load_libraries(providers)
        session = onnx_model.session(path, providers)
        onnx_providers.check_loaded(run, providers, session.get_providers(), installed)
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error
    return lambda batch: onnx_model.run(session, model, batch)


def onnx_run(model: Model, variant: Variant) -> GpuRun:
    """Return how onnxruntime is to run a variant of a model on the GPU."""
    shapes = {tensor.name: tensor.shape for tensor in model.inputs}
    fixed = model.max_batch_size > 0 and all(size > 0 for shape in shapes.values() for size in shape)
    return GpuRun(shapes=shapes if fixed else None, half=variant.precision is Precision.FP16)
