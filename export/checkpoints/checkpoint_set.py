"""A complete set of checkpoints: a folder, single files, and stand-ins for the rest.

CheckpointError (in `load`)
├── NoCheckpoints           none of the four files was given
└── IncompleteCheckpoints   only some of them were, or a folder mixes stand-ins and real ones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .load import CheckpointError, is_stand_in
from .registry import FILES

_NO_FILES: Mapping[str, Path] = MappingProxyType({})


class NoCheckpoints(CheckpointError):
    """None of the four checkpoints was given."""


class IncompleteCheckpoints(CheckpointError):
    """The set is incomplete, or the folder holds a mix of stand-ins and real checkpoints."""


@dataclass(frozen=True)
class CheckpointSet:
    """The four checkpoints.

    Attributes:
        paths: the files by official name.
        stand_ins: the official names of those that are stand-ins.
    """

    paths: Mapping[str, Path]
    stand_ins: frozenset[str]


def find_checkpoints(
    folder: Path | None, files: Mapping[str, Path] = _NO_FILES, stand_ins: Path | None = None
) -> CheckpointSet:
    """Return the complete set of checkpoints.

    Args:
        folder: holds checkpoints under their official names.
        files: single checkpoints by official name, which are used instead of those of the folder.
        stand_ins: a folder with stand-ins for all that is missing; without it, nothing may be missing.

    Raises:
        NoCheckpoints: there is none.
        IncompleteCheckpoints: there are only some, or the folder holds a mix of stand-ins and real ones.
        CheckpointError: one of the files cannot be read.
    """
    _check_files(files)
    present = {name: folder / name for name in FILES if folder and (folder / name).is_file()}
    paths = {**present, **files}
    missing = [name for name in FILES if name not in paths]
    if len(missing) == len(FILES) and not stand_ins:
        raise NoCheckpoints(f"{folder}: no checkpoints here; expected {', '.join(FILES)}")
    if missing and not stand_ins:
        raise IncompleteCheckpoints(
            f"{folder or 'checkpoints'}: the set of checkpoints is incomplete; to use stand-ins for the rest, add "
            f"--stand-ins; missing: {', '.join(missing)}"
        )
    fakes = [name for name, path in present.items() if is_stand_in(path)]
    if 0 < len(fakes) < len(present):
        raise IncompleteCheckpoints(
            f"{folder}: {', '.join(fakes)}: stand-ins in one folder with real checkpoints; use a folder for each"
        )
    if stand_ins:
        paths |= {name: stand_ins / name for name in missing}
    return CheckpointSet(paths, frozenset(name for name, path in paths.items() if is_stand_in(path)))


def _check_files(files: Mapping[str, Path]) -> None:
    for path in files.values():
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
