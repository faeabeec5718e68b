"""Export a PyTorch module to a TorchScript archive, for the `pytorch` backend."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from lipsync import __version__
from lipsync.arrays import Array
from lipsync.tensors import Model

from ..checkpoints.provenance import Provenance
from ..networks.inference import fold_batch_norms

NOTES = "talking_avatar.json"  # the archive's extra file: model, checkpoint and version of the export


def save(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path, provenance: Provenance) -> None:
    """Trace `graph` and save it as an archive that keeps the table's names.

    The traced `forward` keeps its argument names; both Triton's native `pytorch` backend and ours use them to assign
    the inputs. The outputs are a tensor or a tuple in the table's order. Weights are stored channels-last, like the
    images, so a GPU does not have to transpose them.

    Args:
        model: its entry in the table.
        graph: FP32, or converted by `inference.to_half`.
        sample: inputs to trace with, batched.
        path: the file to write.
        provenance: recorded in the archive as `NOTES`.
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
        # PyTorch deprecates TorchScript. Since 26.03 NVIDIA's pytorch backend reads AOTInductor packages, too, but
        # those fix the names of the tensors, and Triton 24.10 does not know them.
        warnings.simplefilter("ignore", DeprecationWarning)
        with _cudnn_flags(model):
            traced = torch.jit.trace(folded, inputs, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, path, _extra_files={NOTES: json.dumps(notes)})


@contextmanager
def _cudnn_flags(model: Model) -> Iterator[None]:
    """Set what a trace records in each convolution: whether cuDNN measures its kernels for each new shape.

    The recorded flags count, not those of the process that runs the archive. A measurement pays off for rows of a fixed
    size, whose batches come in a few sizes; for images of any size it would stop the GPU again and again.
    """
    fixed = all(size > 0 for tensor in model.inputs for size in tensor.shape)
    # `enabled` is False by default here, and the trace would record that, too: convolutions without cuDNN
    with torch.backends.cudnn.flags(enabled=True, benchmark=fixed):
        yield


def load(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Return the module of an archive, on the CPU, and its `NOTES`."""
    notes = {NOTES: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module: nn.Module = torch.jit.load(path, map_location="cpu", _extra_files=notes)  # type: ignore[no-untyped-call]
    return module, json.loads(notes[NOTES] or "{}")
