"""The arithmetic of a talking avatar, by NumPy and OpenCV: no files, processes, network.

Every function takes arrays and returns arrays, so Triton's Python models, the exporter's checks, the pipeline and the
tests use the same ones. `lipsync.tensors` is the one source of the name, type and shape of every public tensor.

The names below are imported on first use: `lipsync.tensors` does not load OpenCV, and `lipsync.triton.cpu` needs no
package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .blend import feather
    from .errors import InvalidInput, LipsyncError
    from .face_crop import crop, paste
    from .mel import mel_spectrogram
    from .tensors import MODELS

__version__ = "0.1.0"
__all__ = ["MODELS", "InvalidInput", "LipsyncError", "crop", "feather", "mel_spectrogram", "paste"]

_MODULES = {
    "InvalidInput": "errors",
    "LipsyncError": "errors",
    "MODELS": "tensors",
    "crop": "face_crop",
    "feather": "blend",
    "mel_spectrogram": "mel",
    "paste": "face_crop",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
