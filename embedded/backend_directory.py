"""Build the directory from which the server loads its backends.

    backends/
    ├── python/         libtriton_python.so, triton_python_backend_utils.py, and the stub
    └── onnxruntime/    model.py of this project, run by the Python backend

The wheel has the stub in another folder, and site-packages is not modified, so each server gets its own directory.
Files are copied (3 MB): the server rejects a backend library that is a symbolic link out of its folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .installation import Installation

_BACKENDS = Path(__file__).parent / "backends"
_NO_CACHES = shutil.ignore_patterns("__pycache__")


def build_backends(folder: Path, installation: Installation) -> Path:
    """Build the backend directory inside `folder` and return its path."""
    backends = folder / "backends"
    shutil.copytree(_BACKENDS, backends, ignore=_NO_CACHES)
    python = backends / "python"
    shutil.copytree(installation.backend, python, ignore=_NO_CACHES)
    shutil.copy2(installation.stub, python)  # with its executable bit
    return backends
