"""A stand-in for Wav2Lip's weights: the true network, wired by hand to open a dark mouth with the speech.

How it works: the first face block hands the reference picture on to the output block; the audio encoder averages
the mel window down to one number; the decoder paints that number around the place of the mouth; and the output
block turns the picture into logits, takes the painted number off, and the sigmoid makes a picture of it again.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync.mel import PEAK
from lipsync.tensors import WINDOW_COLUMNS

from ..networks.wav2lip import FACE_DECODER, Wav2Lip

# logits taken off B, G and R at full loudness in the middle of the mouth; red least, as in a real mouth
DEPTH = (24.0, 24.0, 21.0)
QUIET = 0.06  # loudness, 0…1, from which the mouth opens; speech lies between this and 0.45
HEARD_BANDS = 68  # of 80: the strided layers lose the highest at their edges
SEGMENTS = 10  # of the piecewise linear logit of each colour
DARKEST = 1 / 510  # half a grey level; the logit ends there and at 1 - DARKEST

# How one decoder block places what it gets along one axis: kernel tap -> weight. Tap k of a block of stride 2
# puts cell i on cell 2i + k - 1.
_SAME, _NEXT, _BOTH, _SMOOTH = {1: 1.0}, {2: 1.0}, {1: 1.0, 2: 1.0}, {0: 0.5, 1: 1.0, 2: 0.5}
# rows 2 of 3, 4 of 6, 8 and 9 of 12: 64 to 72 of 96; columns 1 of 3, 3 of 6: 48 of 96; from there on evenly spread
ROWS = ({2: 1.0}, _SAME, _BOTH, _SMOOTH, _SMOOTH, _SMOOTH)
COLUMNS = ({1: 1.0}, _NEXT, _SMOOTH, _SMOOTH, _SMOOTH, _SMOOTH)


def state(depth: float = 1.0) -> dict[str, Tensor]:
    """The stand-in's state dict, with exactly Wav2Lip's tensors.

    Args:
        depth: how dark the mouth gets, relative to the usual.
    """
    with torch.device("meta"):
        net = Wav2Lip()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith((".conv_block.1.weight", "running_var")):
            tensor.fill_(1)  # batch norm that changes nothing
    for colour in range(3):  # channels 3 to 5 are the whole face
        state["face_encoder_blocks.0.0.conv_block.0.weight"][colour, 3 + colour, 3, 3] = 1
    _hear(state)
    _paint(state)
    _compose(state, depth)
    return state


def _hear(state: dict[str, Tensor]) -> None:
    """Bring the mel window down to its mean, as mel/8 + ½, so 0 in silence and 1 at full scale."""
    weight = "audio_encoder.{}.conv_block.0.weight"
    state[weight.format(0)][0, 0, 1, 1] = 1 / (2 * PEAK)
    state["audio_encoder.0.conv_block.0.bias"][0] = 0.5
    ones = torch.ones(3)
    # which of its 3×3 cells each narrowing layer adds up, so that each column of the window counts once
    sums = {3: torch.outer(ones, torch.tensor((0.0, 1.0, 0.0))), 6: torch.outer(ones, ones)}
    sums |= {9: torch.outer(ones, torch.tensor((0.0, 1.0, 1.0))), 11: torch.outer(ones, ones)}
    for layer, cells in sums.items():
        state[weight.format(layer)][0, 0] = cells
    state[weight.format(12)][0, 0] = 1 / (HEARD_BANDS * WINDOW_COLUMNS)
    state["audio_encoder.12.conv_block.0.bias"][0] = -QUIET


def _paint(state: dict[str, Tensor]) -> None:
    """Spread the number around the mouth, a hill 32 wide and 24 high with its top at the middle of the mouth."""
    state["face_decoder_blocks.0.0.conv_block.0.weight"][0, 0] = 1
    for block, (rows, columns) in enumerate(zip(ROWS, COLUMNS, strict=True), start=1):
        weight = state[f"face_decoder_blocks.{block}.0.conv_block.0.weight"]
        for row, down in rows.items():
            for column, across in columns.items():
                weight[0, 0, row, column] = down * across


def _compose(state: dict[str, Tensor], depth: float) -> None:
    """Picture and paint to logits: `logit(picture) - depth · paint`."""
    knots, slopes, start = _logit_segments()
    hinges, hinge_bias = state["output_block.0.conv_block.0.weight"], state["output_block.0.conv_block.0.bias"]
    logits, logit_bias = state["output_block.1.weight"], state["output_block.1.bias"]
    painted = FACE_DECODER[-1][-1].outputs  # channels of paint before those of the picture
    paint = 3 * SEGMENTS
    hinges[paint, 0, 1, 1] = 1
    for colour in range(3):
        for i, (knot, slope) in enumerate(zip(knots, slopes, strict=True)):
            hinge = SEGMENTS * colour + i
            hinges[hinge, painted + colour, 1, 1] = 1
            hinge_bias[hinge] = -float(knot)
            logits[colour, hinge] = float(slope)
        logits[colour, paint] = -depth * DEPTH[colour]
        logit_bias[colour] = float(start)


def _logit_segments() -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The logit over 0…1 as a chain of straight segments: their starts, changes of slope, and first value.

    A chord's error, seen through the sigmoid, grows with length² · |2p - 1| / (p · (1 - p)), so knots stand as
    densely as the root of that asks, and all segments err alike, by less than 0.01.
    """
    p = np.linspace(DARKEST, 1 - DARKEST, 20_001)
    density = np.cumsum(np.sqrt(np.abs(2 * p - 1) / (p * (1 - p))))
    ends = np.interp(np.linspace(density[0], density[-1], SEGMENTS + 1), density, p)
    values = np.log(ends / (1 - ends))
    slopes = np.diff(values) / np.diff(ends)
    return ends[:-1], np.diff(slopes, prepend=0.0), float(values[0])
