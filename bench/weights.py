"""Checkpoints to time with: seeded random lips, because a stand-in's zeros make denormals; the stand-in detector,
because a face has to be found. All marked as stand-ins."""

from __future__ import annotations

from pathlib import Path

import torch

from export import stand_ins
from export.checkpoints.load import STAND_IN, WAV2LIP_FILE, WAV2LIP_GAN_FILE, stand_in_mark
from export.networks import random_weights

MARK = "timing weights, filled by name"


def timing_weights(folder: Path) -> Path:
    """Write the four files into `folder`, where they are not there yet, and give it back."""
    mark = f"{MARK}, beside {stand_ins.mark()}"  # so that a detector of older code is written anew
    lips = [folder / name for name in (WAV2LIP_FILE, WAV2LIP_GAN_FILE)]
    if not all(path.exists() and stand_in_mark(path) == mark for path in lips):
        stand_ins.write(folder)
        state = random_weights.wav2lip().state_dict()
        for path in lips:
            temporary = path.with_suffix(".part")
            torch.save({**state, STAND_IN: mark}, temporary)
            temporary.replace(path)
    return folder
