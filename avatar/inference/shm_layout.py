"""Where in shared memory the large tensors of one call lie. Pure: no memory is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model, Tensor

# Tensors from this size on go through shared memory; smaller ones travel in the message as fast.
SHARED_BYTES = 64 << 10
ALIGNED = 64  # bytes; a cache line

# What is sent as one tensor: an array, or arrays of one shape and type that are stacked on the way.
TensorInput = Array | Sequence[Array]


@dataclass(frozen=True)
class Span:
    """Bytes of a region."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """Places of a call's tensors; None for one that travels in the message.

    Attributes:
        size: bytes of the region that all of it takes; 0 where nothing is large.
    """

    inputs: tuple[Span | None, ...]
    answer: Span | None
    size: int


def plan_layout(model: Model, given: Sequence[TensorInput], answer: tuple[int, ...] | None) -> Layout:
    """Places for inputs, in the model's order, and for its only output of shape `answer`, where that is known.

    Raises:
        InvalidInput: an array does not fit its tensor.
    """
    size = 0

    def place(nbytes: int) -> Span | None:
        nonlocal size
        if nbytes < SHARED_BYTES:
            return None
        begin = size
        size += -(-nbytes // ALIGNED) * ALIGNED
        return Span(begin, nbytes)

    inputs = tuple(place(validated(*pair).nbytes) for pair in zip(model.inputs, given, strict=True))
    output = place(math.prod(answer) * np.dtype(model.outputs[0].numpy).itemsize) if answer else None
    return Layout(inputs, output, size)


def validated(tensor: Tensor, given: TensorInput) -> Array:
    """An array of the shape and type that is sent: of arrays that are yet to be stacked, not their values.

    Raises:
        InvalidInput: it does not fit the tensor.
    """
    array = given if isinstance(given, np.ndarray) else np.empty(0)
    if not isinstance(given, np.ndarray) and len({(each.shape, each.dtype) for each in given}) == 1:
        array = np.broadcast_to(given[0], (len(given), *given[0].shape))
    tensor.check(array)
    return array


def write(given: TensorInput, there: Array) -> None:
    """Copy, once, what is given."""
    if isinstance(given, np.ndarray):
        np.copyto(there, given)
    else:
        np.stack(given, out=there)


def stacked(given: TensorInput) -> Array:
    """What is given as one array; stacked only if it is not one yet."""
    return given if isinstance(given, np.ndarray) else np.stack(given)
