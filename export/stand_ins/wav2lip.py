"""A stand-in for Wav2Lip's weights: the true network with hand-set weights that open a dark mouth with the speech.

The first face block passes the reference image on to the output block. The audio encoder averages the mel window to
one number. The decoder spreads that number around the position of the mouth. The output block turns the image into
logits and subtracts the spread number, and the sigmoid turns the logits into an image again.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync.mel import PEAK
from lipsync.tensors import WINDOW_COLUMNS

from ..networks.wav2lip import FACE_DECODER, Wav2Lip

# logits subtracted from B, G and R at full loudness in the middle of the mouth; least from red, as in a real mouth
DEPTH = (24.0, 24.0, 21.0)
QUIET = 0.06  # loudness (0 to 1) above which the mouth opens; speech is between this and 0.45
AVERAGED_BANDS = 68  # of 80: the strided layers lose the highest bands at their edges
SEGMENTS = 10  # of the piecewise linear logit of each color
DARKEST = 1 / 510  # half a gray level; the logit is limited to this and 1 - DARKEST

# How one decoder block spreads its input along one axis: kernel tap -> weight. Tap k of a block of stride 2 writes
# cell i to cell 2i + k - 1.
_SAME, _NEXT, _BOTH, _SMOOTH = {1: 1.0}, {2: 1.0}, {1: 1.0, 2: 1.0}, {0: 0.5, 1: 1.0, 2: 0.5}
# rows 2 of 3, 4 of 6, 8 and 9 of 12: 64 to 72 of 96; columns 1 of 3, 3 of 6: 48 of 96; after that evenly spread
ROWS = ({2: 1.0}, _SAME, _BOTH, _SMOOTH, _SMOOTH, _SMOOTH)
COLUMNS = ({1: 1.0}, _NEXT, _SMOOTH, _SMOOTH, _SMOOTH, _SMOOTH)


def state(depth: float = 1.0) -> dict[str, Tensor]:
    """Return the stand-in's state dict, with exactly Wav2Lip's tensors.

    Args:
        depth: darkness of the mouth; 1 is the usual one.
    """
    with torch.device("meta"):
        net = Wav2Lip()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith((".conv_block.1.weight", "running_var")):
            tensor.fill_(1)  # a batch norm without effect
    for color in range(3):  # channels 3 to 5 are the whole face
        state["face_encoder_blocks.0.0.conv_block.0.weight"][color, 3 + color, 3, 3] = 1
    _average_mel(state)
    _spread(state)
    _subtract(state, depth)
    return state


def _average_mel(state: dict[str, Tensor]) -> None:
    """Average the mel window, as mel/8 + ½: 0 in silence and 1 at full scale."""
    weight = "audio_encoder.{}.conv_block.0.weight"
    state[weight.format(0)][0, 0, 1, 1] = 1 / (2 * PEAK)
    state["audio_encoder.0.conv_block.0.bias"][0] = 0.5
    ones = torch.ones(3)
    # the 3×3 cells that each narrowing layer adds up, so that each column of the window counts once
    sums = {3: torch.outer(ones, torch.tensor((0.0, 1.0, 0.0))), 6: torch.outer(ones, ones)}
    sums |= {9: torch.outer(ones, torch.tensor((0.0, 1.0, 1.0))), 11: torch.outer(ones, ones)}
    for layer, cells in sums.items():
        state[weight.format(layer)][0, 0] = cells
    state[weight.format(12)][0, 0] = 1 / (AVERAGED_BANDS * WINDOW_COLUMNS)
    state["audio_encoder.12.conv_block.0.bias"][0] = -QUIET


def _spread(state: dict[str, Tensor]) -> None:
    """Spread the number around the mouth: a hill 32 wide and 24 high, with its peak in the middle of the mouth."""
    state["face_decoder_blocks.0.0.conv_block.0.weight"][0, 0] = 1
    for block, (rows, columns) in enumerate(zip(ROWS, COLUMNS, strict=True), start=1):
        weight = state[f"face_decoder_blocks.{block}.0.conv_block.0.weight"]
        for row, down in rows.items():
            for column, across in columns.items():
                weight[0, 0, row, column] = down * across


def _subtract(state: dict[str, Tensor], depth: float) -> None:
    """Compute the logits `logit(image) - depth · paint`."""
    knots, slopes, start = _logit_segments()
    hinges, hinge_bias = state["output_block.0.conv_block.0.weight"], state["output_block.0.conv_block.0.bias"]
    logits, logit_bias = state["output_block.1.weight"], state["output_block.1.bias"]
    painted = FACE_DECODER[-1][-1].outputs  # number of paint channels, which precede those of the image
    paint = 3 * SEGMENTS
    hinges[paint, 0, 1, 1] = 1
    for color in range(3):
        for i, (knot, slope) in enumerate(zip(knots, slopes, strict=True)):
            hinge = SEGMENTS * color + i
            hinges[hinge, painted + color, 1, 1] = 1
            hinge_bias[hinge] = -float(knot)
            logits[color, hinge] = float(slope)
        logits[color, paint] = -depth * DEPTH[color]
        logit_bias[color] = float(start)


def _logit_segments() -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Approximate the logit by line segments; return their starts, their changes of slope, and the first value.

    After the sigmoid, a segment's error grows with length² · |2p - 1| / (p · (1 - p)). The density of the knots is
    proportional to the square root of that, so that all segments have the same error, below 0.01.
    """
    p = np.linspace(DARKEST, 1 - DARKEST, 20_001)
    density = np.cumsum(np.sqrt(np.abs(2 * p - 1) / (p * (1 - p))))
    ends = np.interp(np.linspace(density[0], density[-1], SEGMENTS + 1), density, p)
    values = np.log(ends / (1 - ends))
    slopes = np.diff(values) / np.diff(ends)
    return ends[:-1], np.diff(slopes, prepend=0.0), float(values[0])
