"""Stand-in checkpoints: the official files for the true networks, wired by hand, for machines without the weights.

They find drawn and photographed faces by their skin, and open a dark mouth with the loudness of the speech; so the
whole path can be run and seen to work. What they show is no more than that. Each file carries a mark inside, and a
folder of them a README.txt that says what they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

from ..checkpoints.load import (
    S3FD_FILE,
    SEGMENTATION_FILE,
    STAND_IN,
    WAV2LIP_FILE,
    WAV2LIP_GAN_FILE,
    CheckpointError,
    stand_in_mark,
)
from ..errors import ExportError
from . import s3fd, segmentation, wav2lip

README_FILE = "README.txt"
README_TITLE = "THESE ARE STAND-INS, NOT THE PUBLISHED WEIGHTS."
README = f"""\
{README_TITLE}

The files in this folder have the names and formats of the published checkpoints, and the networks load them, but
nothing in them was learnt: the detector finds patches of skin, the "lips" are a dark spot that grows with loudness,
the segmentation calls everything reddish a person. They exist so that the whole service can run and be tested on a
machine that cannot download the real ones. Never show their results as the product's.

Written by `python -m export stand-ins`. Put the real files into a folder of their own.
"""
GAN_DEPTH = 1.5  # wav2lip_gan opens the darker mouth, so that one can see which of the two ran


def write(folder: Path, on_progress: Callable[[str], None] = print) -> None:
    """Write the four stand-in checkpoints and a README.txt into `folder`, which is made if need be.

    A stand-in that is up to date stays as it is, an old one is replaced; a file is there whole or not at all.

    Raises:
        ExportError: a file of that name is there that this function did not write, or writing failed.
    """
    current = mark()
    writers = {name: write for name, write in _WRITERS.items() if not _is_written(folder / name, current)}
    readme = folder / README_FILE
    if readme.exists() and not readme.read_bytes().startswith(README_TITLE.encode()):
        raise ExportError(f"{readme}: not of a folder of stand-ins, so nothing is written here; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _atomically(readme, lambda path: path.write_text(README, "utf-8"))
    for name, writer in writers.items():
        _atomically(folder / name, lambda path, writer=writer: writer(path, current))  # type: ignore[misc]
        on_progress(f"{folder / name}: written, a STAND-IN, not the published weights")


def _is_written(path: Path, mark: str) -> bool:
    if not path.exists():
        return False
    refusal = f"{path}: not a stand-in, so it is not overwritten; choose another folder for stand-ins"
    try:
        found = stand_in_mark(path)
    except CheckpointError as error:
        raise ExportError(refusal) from error
    if found is None:
        raise ExportError(refusal)
    return found == mark


def mark() -> str:
    """What a stand-in of this version carries: it changes with the code that wires them."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return f"talking-avatar stand-in {code.hexdigest()[:16]}"


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_wav2lip(path: Path, mark: str) -> None:
    """The form of the original's training script: names with `module.`, training state beside them."""
    state = {f"module.{name}": tensor for name, tensor in wav2lip.state().items()}
    torch.save({"state_dict": state, "optimizer": None, "global_step": 0, "global_epoch": 0, STAND_IN: mark}, path)


def _write_wav2lip_gan(path: Path, mark: str) -> None:
    """The bare form."""
    torch.save({**wav2lip.state(GAN_DEPTH), STAND_IN: mark}, path)


def _write_s3fd(path: Path, mark: str) -> None:
    torch.save({**s3fd.state(), STAND_IN: mark}, path)


_WRITERS: dict[str, Callable[[Path, str], None]] = {
    WAV2LIP_FILE: _write_wav2lip,
    WAV2LIP_GAN_FILE: _write_wav2lip_gan,
    S3FD_FILE: _write_s3fd,
    SEGMENTATION_FILE: segmentation.write,
}
