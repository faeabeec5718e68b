"""Export a PyTorch module to ONNX."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from lipsync.arrays import Array
from lipsync.tensors import Model

from ..checkpoints.provenance import Provenance
from ..networks.inference import fold_batch_norms
from . import onnx_model

OPSET = 17  # enough for the two networks, and old enough for every supported server


def save(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path, provenance: Provenance) -> None:
    """Trace `graph` and write it to `path`, with the table's tensor names, any batch size and any varying size.

    Args:
        model: its entry in the table.
        graph: FP32, or converted by `inference.to_half`.
        sample: inputs to trace with, batched.
        path: the file to write.
        provenance: recorded in the file.

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
        # The newer exporter also needs onnxscript. The tracing exporter takes two seconds for these two networks and
        # keeps every size variable (the evaluation checks that), but it warns that it is deprecated.
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
