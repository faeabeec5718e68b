"""Checkpoints for timing. All are marked as stand-ins.

The lip-sync networks have seeded random weights, because the zeros of a stand-in lead to denormals. The detector is the
stand-in, because the face has to be detected.
"""

from __future__ import annotations

from pathlib import Path

import torch

from export import stand_ins
from export.checkpoints.load import STAND_IN, stand_in_mark
from export.checkpoints.registry import WAV2LIP_FILE, WAV2LIP_GAN_FILE
from export.networks import random_weights

MARK = "timing weights, filled by name"  # the version of the random weights


def timing_weights(folder: Path) -> Path:
    """Write the four checkpoints into `folder` unless they are up to date; return the folder."""
    mark = f"{MARK}, with {stand_ins.mark()}"  # a new stand-in detector invalidates the files
    lips = [folder / name for name in (WAV2LIP_FILE, WAV2LIP_GAN_FILE)]
    if not all(path.exists() and stand_in_mark(path) == mark for path in lips):
        stand_ins.write(folder)
        state = random_weights.wav2lip().state_dict()
        for path in lips:
            temporary = path.with_suffix(".part")
            torch.save({**state, STAND_IN: mark}, temporary)
            temporary.replace(path)
    return folder
