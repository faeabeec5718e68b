"""Which files are left."""

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder. A folder that is removed meanwhile counts as empty; Path.rglob raises there."""
    return [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
