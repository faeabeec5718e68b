"""Keep samples and the network's outputs for them in a file, to judge an export where the network cannot run.

A TensorRT plan is built in NVIDIA's Triton image, which has no PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lipsync.arrays import Array, Batch
from lipsync.tensors import Model, Tensor

from ..errors import ExportError
from .accuracy import ReferenceOutputs

SAMPLES_FILE = "evaluation.npz"  # in the version directory of a network whose plan is still to be built
_WEIGHTS = "weights"


def save(references: ReferenceOutputs, path: Path) -> None:
    """Write samples and outputs to `path`, compressed."""
    arrays: dict[str, Array] = {_WEIGHTS: np.array(references.weights)}
    for name, batches in references.sets.items():
        for number, (batch, outputs) in enumerate(zip(batches, references.outputs[name], strict=True)):
            pairs = ((references.model.inputs, batch), (references.model.outputs, outputs))
            for tensors, values in pairs:
                for tensor, value in zip(tensors, values, strict=True):
                    arrays[_key(name, number, tensor)] = value
    np.savez_compressed(path, **arrays)


def load(model: Model, path: Path) -> ReferenceOutputs:
    """Read what `save` wrote.

    Raises:
        ExportError: the file is missing, damaged, or of another model.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
        weights = str(arrays.pop(_WEIGHTS))
        counts: dict[str, int] = {}
        for key in arrays:
            name, number, _ = key.split("/")
            counts[name] = max(counts.get(name, 0), int(number) + 1)
        sets = {name: [_batch(arrays, name, n, model.inputs) for n in range(count)] for name, count in counts.items()}
        outputs = {
            name: [_batch(arrays, name, n, model.outputs) for n in range(count)] for name, count in counts.items()
        }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ExportError(f"{path}: no samples of {model.name} in it ({error}); export the models again") from error
    return ReferenceOutputs.recorded(model, sets, outputs, weights)


def for_batches(references: ReferenceOutputs, smallest: int) -> ReferenceOutputs:
    """Return the samples in batches of at least `smallest`: those of a set in one batch, repeated up to that size.

    Samples that already have such batches stay as they are.
    """
    if all(len(batch[0]) >= smallest for batches in references.sets.values() for batch in batches):
        return references
    sets = {name: [_repeated(batches, smallest)] for name, batches in references.sets.items()}
    outputs = {name: [_repeated(batches, smallest)] for name, batches in references.outputs.items()}
    return ReferenceOutputs.recorded(references.model, sets, outputs, references.weights)


def _repeated(batches: Sequence[Sequence[Array]], count: int) -> Batch:
    joined = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
    return tuple(array[np.arange(max(count, len(array))) % len(array)] for array in joined)


def _batch(arrays: dict[str, Array], name: str, number: int, tensors: Sequence[Tensor]) -> Batch:
    return tuple(arrays[_key(name, number, tensor)] for tensor in tensors)


def _key(name: str, number: int, tensor: Tensor) -> str:
    return f"{name}/{number}/{tensor.name}"
