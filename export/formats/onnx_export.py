"""From a graph in PyTorch to an ONNX file."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from lipsync.tensors import Model

from ..networks.inference import fold_batch_norms
from . import onnx_model
from .onnx_model import Array, Provenance

OPSET = 17  # all that the two nets need; far below what the oldest server reads


def save(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path, provenance: Provenance) -> None:
    """Trace `graph` and write `path`: the table's names, batch and varying sizes left open.

    Args:
        model: its entry in the table.
        graph: FP32, or halved by `graphs.halved`.
        sample: inputs to trace with, batched.
        path: the file to write.
        provenance: goes into the file.

    Raises:
        ExportError: the graph's tensors are not those of the table.
    """
    folded = copy.deepcopy(graph).eval()
    fold_batch_norms(folded)
    _trace(model, folded, sample, path)
    proto = onnx.load(path)
    onnx_model.annotate(proto, model, provenance)
    onnx.save(proto, path)


def _trace(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path) -> None:
    varying = {
        tensor.name: {0: "batch"} | {i + 1: f"{tensor.name}_{i}" for i, size in enumerate(tensor.shape) if size == -1}
        for tensor in (*model.inputs, *model.outputs)
    }
    with warnings.catch_warnings(), torch.no_grad():
        # The new exporter needs onnxscript on top. The tracing one does these two nets in two seconds,
        # every size left open (verification holds it to that), but warns that it is the older one.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph,
            tuple(torch.from_numpy(array) for array in sample),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in model.inputs],
            output_names=[tensor.name for tensor in model.outputs],
            dynamic_axes=varying,
        )
