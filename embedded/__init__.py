"""Run NVIDIA's Triton server from its PyPI wheel, for machines without Docker: `python -m embedded`.

`Triton` is imported on first use: `embedded.installation` checks the machine before any package is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Triton

__all__ = ["Triton"]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "Triton":
        from .server import Triton

        return Triton
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
