"""Exported files run on this machine's CPU as the server's backends run them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openvino
import torch
from torch import nn

from lipsync.tensors import Model

from ..errors import ExportError
from ..formats import onnx_model, torchscript
from ..formats.onnx_model import Array
from .samples import Batch

Run = Callable[[Batch], list[Array]]  # a batch of inputs to a batch of outputs, both in the table's order


def pytorch(graph: nn.Module) -> Run:
    """The network itself, eager: what every export is held to."""

    def run(batch: Batch) -> list[Array]:
        with torch.inference_mode(), _flush_denormals():
            outputs = graph(*(torch.from_numpy(array) for array in batch))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    graph.eval()
    return run


def load(model: Model, path: Path) -> Run:
    """An exported file by its suffix: `.onnx`, `.pt` or `.xml`.

    Raises:
        ExportError: the runtime cannot load it, or it has other tensors than the table.
    """
    try:
        if path.suffix == ".onnx":
            session = onnx_model.session(path)
            return lambda batch: onnx_model.run(session, model, batch)
        if path.suffix == ".pt":
            return pytorch(torchscript.load(path)[0])
        return in_openvino(model, path)
    except ExportError:
        raise
    except Exception as error:  # the runtimes' errors share no base of their own
        raise ExportError(f"{path}: its runtime cannot load it: {error}") from error


def in_openvino(model: Model, path: Path) -> Run:
    """An IR, or an ONNX file as OpenVINO reads it. Raises ExportError where it lacks a tensor of the table."""
    properties = {
        # else a CPU with bf16 would compute FP32 models in that
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    for tensor in (*model.inputs, *model.outputs):
        if not any(tensor.name in port.get_names() for port in (*compiled.inputs, *compiled.outputs)):
            raise ExportError(f"{path}: has no tensor `{tensor.name}`")
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
