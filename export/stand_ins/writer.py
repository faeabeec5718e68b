"""Write the stand-in checkpoints in the official formats, each with a mark inside, and a README.txt next to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..checkpoints.load import STAND_IN, CheckpointError, stand_in_mark
from ..checkpoints.registry import FILES, S3FD_FILE, SEGMENTATION_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE
from ..errors import ExportError
from ..files import ProgressCallback, atomic_write, exclusive_lock
from . import s3fd, segmentation, wav2lip

README_FILE = "README.txt"
README_TITLE = "THESE ARE STAND-INS, NOT THE PUBLISHED WEIGHTS."
README = f"""\
{README_TITLE}

The files in this folder have the names and formats of the published checkpoints, and the networks load them, but
their weights were not trained: the detector finds patches of skin, a painted mouth opens with the loudness of the
speech, and the segmentation cuts out a head and shoulders around the largest patches of skin. They exist so that the
whole service can be run and tested on a machine that cannot download the published weights. Never present their
results as the product's.

Written by `python -m export stand-ins`. Put the published files into another folder.
"""
GAN_OPENING = 1.25  # wav2lip_gan opens the mouth further, so that the results show which of the two ran


def write(folder: Path, on_progress: ProgressCallback = print, names: Iterable[str] = FILES) -> None:
    """Write stand-in checkpoints and a README.txt into `folder`, which is created if it does not exist.

    A stand-in that is up to date is not touched, an older one is replaced.

    Args:
        folder: where to.
        on_progress: takes one line of progress at a time.
        names: files to write, all four by default.

    Raises:
        ExportError: the folder holds a file of one of the four names that this function did not write.
    """
    _check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, on_progress):
        current = mark()
        with atomic_write(folder / README_FILE) as temporary:
            temporary.write_text(README, "utf-8")
        for name in names:
            path, writer = folder / name, _WRITERS[name]
            if path.exists() and stand_in_mark(path) == current:
                continue
            with atomic_write(path) as temporary:
                writer(temporary, current)
            on_progress(f"{path}: written, a STAND-IN, not the published weights")


def mark() -> str:
    """Return the mark of the stand-ins of this version; it changes with the code of this package."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return f"talking-avatar stand-in {code.hexdigest()[:16]}"


def _check_replaceable(folder: Path) -> None:
    """Raise ExportError if a file that this module did not write has one of its names."""
    readme = folder / README_FILE
    if readme.exists() and not readme.read_bytes().startswith(README_TITLE.encode()):
        raise ExportError(f"{readme}: not written by this command, so it is not overwritten; choose another folder")
    for name in _WRITERS:
        path = folder / name
        if path.exists() and not _is_stand_in(path):
            raise ExportError(f"{path}: not a stand-in, so it is not overwritten; choose another folder for stand-ins")


def _is_stand_in(path: Path) -> bool:
    try:
        return stand_in_mark(path) is not None
    except CheckpointError:
        return False


def _write_wav2lip(path: Path, mark: str) -> None:
    """Write the format of the original's training script: names with `module.`, next to training state."""
    state = {f"module.{name}": tensor for name, tensor in wav2lip.state().items()}
    torch.save({"state_dict": state, "optimizer": None, "global_step": 0, "global_epoch": 0, STAND_IN: mark}, path)


def _write_wav2lip_gan(path: Path, mark: str) -> None:
    """Write the format without training state."""
    torch.save({**wav2lip.state(GAN_OPENING), STAND_IN: mark}, path)


def _write_s3fd(path: Path, mark: str) -> None:
    torch.save({**s3fd.state(), STAND_IN: mark}, path)


_WRITERS: dict[str, Callable[[Path, str], None]] = {
    WAV2LIP_FILE: _write_wav2lip,
    WAV2LIP_GAN_FILE: _write_wav2lip_gan,
    S3FD_FILE: _write_s3fd,
    SEGMENTATION_FILE: segmentation.write,
}
