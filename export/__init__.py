"""From checkpoints to a Triton model repository: `python -m export`.

`build_repository` is imported on first use, so that the commands that need no framework load none.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .build.repository import build_repository

__all__ = ["build_repository"]

# onnxruntime, OpenVINO and NNCF report their use over the network, OpenVINO on import. onnxruntime reads the
# environment; the other two do without their reporter where it cannot be imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name == "build_repository":
        from .build.repository import build_repository

        return build_repository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
