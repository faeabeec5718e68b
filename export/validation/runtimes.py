"""Run exported files on this machine's CPU, as the server's backends do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lipsync.arrays import Array, Batch
from lipsync.tensors import Model

from ..errors import ExportError
from ..formats import onnx_model, torchscript

Run = Callable[[Batch], list[Array]]  # from a batch of inputs to a batch of outputs, both in the table's order


def pytorch(graph: nn.Module, device: str = "cpu") -> Run:
    """Return a run of the network itself in PyTorch, on the CPU the reference for every export."""

    def run(batch: Batch) -> list[Array]:
        with torch.inference_mode(), _flush_denormals():
            outputs = graph(*(torch.from_numpy(array).to(device) for array in batch))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    graph.to(device).eval()
    return run


def load(model: Model, path: Path) -> Run:
    """Load an exported file by its suffix: `.onnx`, `.pt` or `.xml`.

    Raises:
        ExportError: the runtime cannot load the file, or its tensors differ from the table.
    """
    try:
        if path.suffix == ".onnx":
            session = onnx_model.session(path)
            return lambda batch: onnx_model.run(session, model, batch)
        if path.suffix == ".pt":
            return pytorch(torchscript.load(path)[0])
        return openvino_run(model, path)
    except ExportError:
        raise
    except Exception as error:  # the runtimes' errors have no common base class
        raise ExportError(f"{path}: its runtime cannot load it: {error}") from error


def openvino_run(model: Model, path: Path) -> Run:
    """Load an IR or an ONNX file into OpenVINO.

    Raises:
        ExportError: the file lacks a tensor of the table.
    """
    import openvino  # a bare machine with a GPU (bench/gpu) lacks it

    properties = {
        # without it, a CPU with bf16 would compute FP32 models in bf16
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    for tensor in (*model.inputs, *model.outputs):
        if not any(tensor.name in port.get_names() for port in (*compiled.inputs, *compiled.outputs)):
            raise ExportError(f"{path}: there is no tensor `{tensor.name}`")
    request = compiled.create_infer_request()

    def run(batch: Batch) -> list[Array]:
        request.infer({tensor.name: array for tensor, array in zip(model.inputs, batch, strict=True)})
        return [request.get_tensor(tensor.name).data.copy() for tensor in model.outputs]

    return run


@contextmanager
def _flush_denormals() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
