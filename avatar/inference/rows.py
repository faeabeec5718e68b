"""The rows of calls to models that take several at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import Model


def count_rows(model: Model, inputs: Sequence[Array]) -> int:
    """Return how many rows a call has; 1 where the model takes no batches."""
    return len(inputs[0]) if model.max_batch_size else 1


def join_rows(parts: Sequence[list[Array]]) -> list[Array]:
    """Return the outputs of several calls, one after the other, as those of one call with all their rows."""
    return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
