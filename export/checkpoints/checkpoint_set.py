"""A folder with a complete set of checkpoints.

CheckpointError (in `load`)
├── NoCheckpoints           the folder holds none of the four files
└── IncompleteCheckpoints   it holds only some of them, or mixes stand-ins and real ones
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .load import CheckpointError, is_stand_in
from .registry import FILES


class NoCheckpoints(CheckpointError):
    """The folder holds none of the four checkpoints."""


class IncompleteCheckpoints(CheckpointError):
    """The folder holds an incomplete set, or a mix of stand-ins and real checkpoints."""


@dataclass(frozen=True)
class CheckpointSet:
    """The four files of a complete folder, all real or all stand-ins."""

    folder: Path
    stand_ins: bool

    @property
    def paths(self) -> dict[str, Path]:
        """Return the files by official name."""
        return {name: self.folder / name for name in FILES}


def find_checkpoints(folder: Path) -> CheckpointSet:
    """Return the complete set of checkpoints in `folder`.

    Raises:
        NoCheckpoints: the folder holds none.
        IncompleteCheckpoints: the folder holds only some, or a mix of stand-ins and real ones.
        CheckpointError: one of the files cannot be read.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if len(missing) == len(FILES):
        raise NoCheckpoints(f"{folder}: no checkpoints here; expected {', '.join(FILES)}")
    if missing:
        raise IncompleteCheckpoints(f"{folder}: the set of checkpoints is incomplete, missing: {', '.join(missing)}")
    stand_ins = [name for name in FILES if is_stand_in(folder / name)]
    if 0 < len(stand_ins) < len(FILES):
        raise IncompleteCheckpoints(
            f"{folder}: {', '.join(stand_ins)}: stand-ins in one folder with real checkpoints; use a folder for each"
        )
    return CheckpointSet(folder, bool(stand_ins))
