"""Where in shared memory the large tensors of one call are placed. Pure functions: no memory is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model

# Tensors of this size and more use shared memory; smaller ones are as fast in the message.
SHARED_BYTES = 64 << 10
ALIGNMENT = 64  # bytes; a cache line


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


def plan_layout(model: Model, inputs: Sequence[Array], output_shape: tuple[int, ...] | None) -> Layout:
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

    check_inputs(model, inputs)
    spans = tuple(span(array.nbytes) for array in inputs)
    output_bytes = math.prod(output_shape) * np.dtype(model.outputs[0].numpy).itemsize if output_shape else 0
    return Layout(spans, span(output_bytes), size)


def check_inputs(model: Model, inputs: Sequence[Array]) -> None:
    """Raise InvalidInput if the shape or type of an input is not that of its tensor."""
    for tensor, array in zip(model.inputs, inputs, strict=True):
        tensor.check(array, batched=bool(model.max_batch_size))
