"""From a graph in PyTorch to a TorchScript archive, for the `pytorch` backend."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lipsync import __version__
from lipsync.tensors import Model

from ..networks.inference import fold_batch_norms
from .onnx_model import Array, Provenance

NOTES = "talking_avatar.json"  # the archive's extra file: what the export was made from


def save(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path, provenance: Provenance) -> None:
    """Trace `graph` and save it as an archive that keeps the table's names.

    The traced `forward` keeps its arguments' names, which both Triton's native `pytorch` backend and ours take the
    inputs by; outputs are a tensor or a tuple in the table's order. Weights lie channels-last, the order in which
    pictures come in, so a GPU needs no transposing.

    Args:
        model: its entry in the table.
        graph: FP32, or halved by `graphs.halved`.
        sample: inputs to trace with, batched.
        path: the file to write.
        provenance: goes into the archive as `NOTES`.
    """
    folded = copy.deepcopy(graph).eval()
    fold_batch_norms(folded)
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = tuple(torch.from_numpy(array) for array in sample)
    notes = {
        "model": model.name,
        "checkpoint_sha256": provenance.sha256,
        "checkpoint": provenance.kind,
        "version": __version__,
    }
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is on its way out of PyTorch; NVIDIA's pytorch backend of 24.10 reads nothing newer.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(folded, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path, _extra_files={NOTES: json.dumps(notes)})


def load(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The module of an archive, on the CPU, and its `NOTES`."""
    notes = {NOTES: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.load(path, map_location="cpu", _extra_files=notes)  # type: ignore[no-untyped-call]
    return module, json.loads(notes[NOTES] or "{}")
