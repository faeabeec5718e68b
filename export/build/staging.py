"""A folder to prepare versions in, from where one rename publishes them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ExportError


@contextmanager
def staging_folder(repository: Path) -> Iterator[Path]:
    """Yield a temporary folder next to the repository: on its file system, but not polled by Triton.

    Raises:
        ExportError: the repository is a mount point, so that no folder can be renamed into it.
    """
    real = repository.resolve()
    if os.path.ismount(real):
        raise ExportError(
            f"{repository} is a mount point, so no version can be renamed into it; use a folder inside it"
        )
    prefix, suffix = f".{real.name}.", ".staging"
    for stale in real.parent.glob(f"{prefix}*{suffix}"):
        shutil.rmtree(stale)  # of an export that was killed: this process holds the lock, so no other one uses it
    with tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=real.parent) as folder:
        yield Path(folder)
