"""Names for the arrays that functions take and return. A name says what an array holds; NumPy checks only its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # of any type and shape
Image: TypeAlias = NDArray[np.uint8]  # [H,W,3], BGR unless a docstring says RGB; an alpha channel is [H,W]
Images: TypeAlias = NDArray[np.uint8]  # [n,H,W,3], images of one size
Box: TypeAlias = NDArray[np.int32]  # [4], x1 y1 x2 y2 in pixels; x2 and y2 are exclusive
Boxes: TypeAlias = NDArray[np.int32]  # [n,4]
Labels: TypeAlias = NDArray[np.int32]  # [H,W], the class of each pixel
Floats: TypeAlias = NDArray[np.float32]  # of any shape: audio, mel windows, unrounded boxes, scores, masks

Batch: TypeAlias = tuple[Array, ...]  # one batch of a model's inputs, in the order of `lipsync.tensors`
Sets: TypeAlias = Mapping[str, Sequence[Batch]]  # the name of a set of samples to its batches
