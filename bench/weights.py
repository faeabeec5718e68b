"""Checkpoints for timing. All are marked as stand-ins.

The lip-sync networks have seeded random weights, because the zeros of a stand-in lead to denormals. The detector is the
stand-in, because the face has to be detected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from export import stand_ins
from export.checkpoints.load import STAND_IN, stand_in_mark
from export.checkpoints.registry import S3FD_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE
from export.networks import random_weights

MARK = "timing weights, filled by name"  # the version of the random weights


def timing_weights(folder: Path) -> Path:
    """Write the four checkpoints into `folder` unless they are up to date; return the folder."""
    if not _current_lips(folder):
        stand_ins.write(folder)
        _write_lips(folder)
    return folder


def timing_networks(folder: Path) -> Path:
    """Write the checkpoints of the networks in PyTorch, as `timing_weights` does, where there is no TensorFlow."""
    stand_ins.write(folder, names=(S3FD_FILE,))
    if not _current_lips(folder):
        _write_lips(folder)
    return folder


def _current_lips(folder: Path) -> bool:
    return all(path.exists() and stand_in_mark(path) == _mark() for path in _lips(folder))


def _write_lips(folder: Path) -> None:
    state = random_weights.wav2lip().state_dict()
    for path in _lips(folder):
        _save({**state, STAND_IN: _mark()}, path)


def _lips(folder: Path) -> list[Path]:
    return [folder / name for name in (WAV2LIP_FILE, WAV2LIP_GAN_FILE)]


def _mark() -> str:
    return f"{MARK}, with {stand_ins.mark()}"  # a new stand-in detector invalidates the files


def _save(content: Mapping[str, object], path: Path) -> None:
    temporary = path.with_suffix(".part")
    torch.save(dict(content), temporary)
    temporary.replace(path)
