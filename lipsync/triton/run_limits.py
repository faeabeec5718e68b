"""How much one run of a network may take. The answer depends on the network and its device, not on the backend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..arrays import Array
from .backend_config import BackendConfig

LARGE_BYTES = 8 << 20  # inputs of one run on a CPU: nine 640×480 images, or 250 faces with their windows
# Pixels of one run on a GPU: 17 images of 720p. S3FD takes 650 bytes per pixel in FP32, so that is 10 GB.
MAX_RUN_PIXELS = 16_000_000


class RunPlan(NamedTuple):
    """How a batch is run.

    Attributes:
        rows: rows of one run; None for all.
        large: whether the memory that a run took is released after it.
    """

    rows: int | None
    large: bool


class RunLimits(Protocol):
    """Decides how batches are run."""

    def plan(self, feeds: Mapping[str, Array]) -> RunPlan:
        """Return how the batch with these inputs is run."""
        ...


class CpuLimits:
    """Runs large inputs row by row.

    One row occupies all cores, and a network like s3fd takes 650 bytes per pixel, so four 4K frames of four callers in
    one batch would need 20 GB.
    """

    def plan(self, feeds: Mapping[str, Array]) -> RunPlan:
        """Return how the batch with these inputs is run."""
        large = sum(array.nbytes for array in feeds.values()) > LARGE_BYTES
        return RunPlan(1 if large else None, large)


class GpuLimits:
    """Bounds the pixels of one run of a network whose inputs have open dimensions, and nothing else.

    A GPU is fast only with many rows. Rows of a fixed shape are bounded by `max_batch_size`. Memory is not released,
    because that stops the GPU, and the next batch needs it again.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._most = config.number("MAX_RUN_PIXELS", MAX_RUN_PIXELS)
        self._open = {
            spec.name: [place for place, size in enumerate(spec.shape, config.batched) if size < 0]
            for spec in config.input_specs
        }

    def plan(self, feeds: Mapping[str, Array]) -> RunPlan:
        """Return how the batch with these inputs is run."""
        pixels = [
            math.prod(feeds[name].shape[place] for place in places) for name, places in self._open.items() if places
        ]
        return RunPlan(max(1, self._most // max(*pixels, 1)) if pixels else None, large=False)
