"""Where in shared memory the large tensors of one call are placed. Pure functions: no memory is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model, Tensor

# Tensors of this size and more use shared memory; smaller ones are as fast in the message.
SHARED_BYTES = 64 << 10
ALIGNMENT = 64  # bytes; a cache line

# What is sent as one tensor: an array, or arrays of one shape and type, which are stacked when they are sent.
TensorInput = Array | Sequence[Array]


@dataclass(frozen=True)
class Span:
    """Bytes of a region."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """Spans of a call's tensors; None for one that is sent in the message.

    Attributes:
        size: bytes of the region that they take together; 0 where no tensor is large.
    """

    inputs: tuple[Span | None, ...]
    output: Span | None
    size: int


def plan_layout(model: Model, inputs: Sequence[TensorInput], output_shape: tuple[int, ...] | None) -> Layout:
    """Place inputs, in the model's order, and the model's only output, where its shape is known in advance.

    Raises:
        InvalidInput: an array of the wrong shape or type.
    """
    size = 0

    def span(nbytes: int) -> Span | None:
        nonlocal size
        if nbytes < SHARED_BYTES:
            return None
        offset = size
        size += -(-nbytes // ALIGNMENT) * ALIGNMENT
        return Span(offset, nbytes)

    spans = tuple(span(validated(*pair).nbytes) for pair in zip(model.inputs, inputs, strict=True))
    output_bytes = math.prod(output_shape) * np.dtype(model.outputs[0].numpy).itemsize if output_shape else 0
    return Layout(spans, span(output_bytes), size)


def validated(tensor: Tensor, value: TensorInput) -> Array:
    """Return an array of the shape and type that is sent. For arrays to be stacked, its values are not theirs.

    Raises:
        InvalidInput: the shape or type is not the tensor's.
    """
    array = value if isinstance(value, np.ndarray) else np.empty(0)
    if not isinstance(value, np.ndarray) and len({(each.shape, each.dtype) for each in value}) == 1:
        array = np.broadcast_to(value[0], (len(value), *value[0].shape))
    tensor.check(array)
    return array


def write(value: TensorInput, target: Array) -> None:
    """Write an input to `target`, with one copy."""
    if isinstance(value, np.ndarray):
        np.copyto(target, value)
    else:
        np.stack(value, out=target)


def stacked(value: TensorInput) -> Array:
    """Return an input as one array, stacked only if it is several."""
    return value if isinstance(value, np.ndarray) else np.stack(value)
