"""Checkpoints to time with: seeded random lips, because a stand-in's zeros make denormals; the stand-in detector,
because a face has to be found. All marked as stand-ins."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from export import stand_ins
from export.checkpoints import STAND_IN, WAV2LIP_FILE, WAV2LIP_GAN_FILE, stand_in_mark
from export.networks.wav2lip import Wav2Lip

SEED = 20260
MARK = f"timing weights, seed {SEED}"


def timing_weights(folder: Path) -> Path:
    """Write the four files into `folder`, where they are not there yet, and give it back."""
    lips = [folder / name for name in (WAV2LIP_FILE, WAV2LIP_GAN_FILE)]
    if not all(path.exists() and stand_in_mark(path) == MARK for path in lips):
        stand_ins.write(folder)
        state = _random_state()
        for path in lips:
            temporary = path.with_suffix(".part")
            torch.save({**state, STAND_IN: MARK}, temporary)
            temporary.replace(path)
    return folder


def _random_state() -> dict[str, torch.Tensor]:
    """Normal weights, scaled by 1/sqrt(fan-in) so that activations stay in range; batch norms left as they begin."""
    torch.manual_seed(SEED)
    state = Wav2Lip().state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 4:
            state[name] = torch.randn(tensor.shape) / math.sqrt(math.prod(tensor.shape[1:]))
    return state
