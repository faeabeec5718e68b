"""A GPU of this machine, on which exports are judged and timed where they will be served.

`gpu_runs` finds it. This module knows nothing of the runtimes, because it belongs to the code that decides an export.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lipsync.tensors import Model

from ..variants import Format, Variant

if TYPE_CHECKING:
    from .runtimes import Run

Load = Callable[["Model", Path, "Variant"], "Run"]  # an exported file onto the GPU


@dataclass(frozen=True)
class Gpu:
    """A GPU, or none.

    Attributes:
        name: empty where there is none.
        loaders: for each format that can be run on it here, what loads a file.
    """

    name: str = ""
    loaders: Mapping[Format, Load] = field(default_factory=dict)

    @property
    def formats(self) -> Collection[Format]:
        """The formats that can be run on it."""
        return self.loaders.keys()

    def load(self, model: Model, path: Path, variant: Variant) -> Run | None:
        """Return a run of an exported file on this GPU, or None if the variant is run on the CPU.

        Raises:
            ExportError: its runtime cannot load it.
        """
        loader = self.loaders.get(variant.format)
        return loader(model, path, variant) if loader else None


NO_GPU = Gpu()
