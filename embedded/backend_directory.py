"""The backend directory that the server loads its backends from.

    backends/
    ├── python/         libtriton_python.so, triton_python_backend_utils.py, and the stub beside them
    └── onnxruntime/    model.py: ours, served by the Python backend

The wheel keeps the stub elsewhere, and site-packages stays as it is, so the directory is put
together anew for each server. Files are copied (3 MB): the server refuses a backend library that is
a link out of its own folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .installation import Installation

_OURS = Path(__file__).parent / "backends"
_NO_CACHES = shutil.ignore_patterns("__pycache__")


def build_backends(folder: Path, parts: Installation) -> Path:
    """Make the backend directory inside `folder` and return it."""
    backends = folder / "backends"
    shutil.copytree(_OURS, backends, ignore=_NO_CACHES)
    python = backends / "python"
    shutil.copytree(parts.backend, python, ignore=_NO_CACHES)
    shutil.copy2(parts.stub, python)  # with its executable bit
    return backends
