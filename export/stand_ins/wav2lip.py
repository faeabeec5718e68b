"""A stand-in for Wav2Lip's weights: the true network with hand-set weights that open a painted mouth with the speech.

The audio encoder averages the mel window to one number, the loudness. The first six decoder blocks spread it, and a
constant, over the lower face, and add them up to three maps: how far a pixel is inside the opening of the mouth, inside
the outer edge of the lips, and above the lower edge of the teeth. The last two layers of the decoder turn the maps into
paint: lips, opening and teeth. The first face block passes the reference image on to the output block, which turns it
into logits, tints it where the lips are, and hides it where the opening is. The sigmoid turns the logits into an image
again. In silence there is no paint, and the image comes back as it was.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync.mel import PEAK
from lipsync.tensors import FACE_SIZE, WINDOW_COLUMNS

from ..networks.wav2lip import FACE_DECODER, Wav2Lip
from .wiring import Wiring

QUIET = 0.06  # loudness (0 to 1) above which the mouth opens; speech is between this and 0.45
AVERAGED_BANDS = 68  # of 80: the strided layers lose the highest bands at their edges

# The mouth, in rows and columns of the face of 96×96
MIDDLE = (66, 48)  # where it opens
HALF_WIDTH = 18.0  # of the opening
DROP = 27.0  # rows by which the lower lip goes down, per loudness above QUIET
LOWEST = 16.0  # rows: the lower lip goes no further
RISE = 0.5  # the upper lip goes up by this share of the drop
LIP = 6.0  # rows of the lower lip; the upper lip has RISE of them
LIP_CORNER = 3.0  # columns by which the lips are wider than the opening
LIPS_AT = 0.06  # loudness above QUIET at which the lips are fully painted
TEETH = 5.5  # rows, below the upper lip

# Each kind of paint: the distance in rows, on its map, from which it appears, and over which it becomes opaque
HIDING, OPENING, LIPS, TOOTH = (0.3, 1.8), (0.9, 2.2), (0.2, 3.0), (0.0, 2.0)
LIP_TINT = (0.55, 0.72, 0.12)  # logits subtracted from B, G and R of the image
OPENING_COLOR = (0.13, 0.11, 0.32)  # B, G, R from 0 to 1
TEETH_COLOR = (0.72, 0.77, 0.82)  # of a face with the brightness MEDIUM; darker in a darker one
MEDIUM = 0.55

# The maps hold (distance + OFFSET) / RANGE: about 0 to 1. int8 exports need a small range, of the weights as well.
OFFSET, RANGE = 8.0, 34.0
LACK_SCALE = 0.1  # of what paint lacks, for the same reason

SEGMENTS = 9  # of the piecewise linear logit of each color
DARKEST = 1 / 510  # half a gray level; the logit is limited to this and 1 - DARKEST

# Channels of the first decoder block, the seeds: the loudness, what of it exceeds two limits, and 1
_LOUD, _TOO_LOUD, _OVER_LIPS, _ONE = range(4)
_BRIGHTNESS = 512  # of the face; it follows the seeds
# What the decoder spreads in strips: seeds with their signs, and whether a strip is a column (or a row) of cells
_STRIPS = (
    ({_LOUD: 1.0, _TOO_LOUD: -1.0}, True),
    ({_LOUD: 1 / LIPS_AT, _OVER_LIPS: -1 / LIPS_AT}, True),
    ({_ONE: 1.0}, True),
    ({_ONE: 1.0}, False),
)
_CELLS = FACE_SIZE // 2  # strips of the finest decoder block that has them, one per two pixels
_UNIFORM = len(_STRIPS) * _CELLS // 2  # the channel that carries the brightness, after those of the strips
# Channels of the last decoder block: the maps, the brightness, and the paint
_INSIDE, _INSIDE_LIPS, _ABOVE_TEETH, _LIGHT = range(4)
_LACKS = range(8, 12)
_HIDE, _LIPS, _OPENING, _TEETH = range(16, 20)

# How a decoder block of stride 2 spreads cell i along one axis. Tap k writes to cell 2i + k - 1.
_REPEATED = ((1, 1.0), (2, 1.0))
_INTERPOLATED = ((0, 0.5), (1, 1.0), (2, 0.5))

Profile = NDArray[np.float64]


def state(opening: float = 1.0) -> dict[str, Tensor]:
    """Return the stand-in's state dict, with exactly Wav2Lip's tensors.

    Args:
        opening: how far the mouth opens; 1 is the usual one.
    """
    with torch.device("meta"):
        net = Wav2Lip()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith((".conv_block.1.weight", "running_var")):
            tensor.fill_(1)  # a batch norm without effect
    wiring = Wiring(state)
    _pass_face(wiring)
    _average_mel(state)
    _set_seeds(wiring)
    _spread_strips(state)
    _draw_maps(state, opening)
    _paint(wiring)
    _mix(state)
    return state


def _layer(part: str, block: int, layer: int = 0) -> str:
    return f"{part}.{block}.{layer}.conv_block.0"


def _pass_face(wiring: Wiring) -> None:
    """Keep the whole face, channels 3 to 5, in the first block; the others average its brightness to one number."""
    first = _layer("face_encoder_blocks", 0)
    for color in range(3):
        wiring.sum(first, color, {(3 + color, 0, 0): 1})
    wiring.sum(first, 3, {(3 + color, 0, 0): 1 / 3 for color in range(3)})
    for block in range(1, 7):
        source = 3 if block == 1 else 0
        taps = {(source, dy, dx): 1 / 9 for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
        wiring.sum(_layer("face_encoder_blocks", block), 0, taps)
    wiring.sum(_layer("face_encoder_blocks", 6, 1), 0, {(0, 0, 0): 1})


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


def _set_seeds(wiring: Wiring) -> None:
    """Set the first decoder block. A pair of seeds minus each other is limited: ReLU(x) - ReLU(x - limit)."""
    layer = _layer("face_decoder_blocks", 0)
    wiring.sum(layer, _LOUD, {(0, 0, 0): 1})
    wiring.sum(layer, _TOO_LOUD, {(0, 0, 0): 1}, -LOWEST / DROP)
    wiring.sum(layer, _OVER_LIPS, {(0, 0, 0): 1}, -LIPS_AT)
    wiring.bias(layer, _ONE, 1)


def _up(state: dict[str, Tensor], block: int) -> Tensor:
    """Return the weights of a transposed convolution of the decoder: inputs, outputs, rows, columns."""
    return state[f"{_layer('face_decoder_blocks', block)}.weight"]


def _strip(group: int, cell: int, cells: int) -> int:
    """Return the channel of a strip in a block with that number of cells along each axis."""
    return group * cells + cell


def _spread_strips(state: dict[str, Tensor]) -> None:
    """Give each row or column of cells a channel of its own, in blocks 1 to 4: 3, 6, 12 and 24 cells."""
    weight = _up(state, 1)
    for group, (seeds, is_column) in enumerate(_STRIPS):
        for cell in range(3):
            for seed, sign in seeds.items():
                target = weight[seed, _strip(group, cell, 3)]
                (target[:, cell] if is_column else target[cell]).fill_(sign)
    weight[_BRIGHTNESS, _UNIFORM] = 1
    for block, cells in ((2, 6), (3, 12), (4, 24)):
        weight = _up(state, block)
        for group in range(len(_STRIPS)):
            for cell in range(cells):
                _copy_strip(weight, group, cell, cells, _strip(group, cell, cells), 1.0)
        weight[_UNIFORM, _UNIFORM, 1:, 1:] = 1


def _copy_strip(weight: Tensor, group: int, cell: int, cells: int, output: int, value: float) -> None:
    """Let an output have `value` times the seed of a strip in one of `cells` cells, along the whole strip."""
    _, is_column = _STRIPS[group]
    tap = 1 + cell % 2  # of the strip of half as many cells that covers this one
    for along, share in _REPEATED:
        at = (along, tap) if is_column else (tap, along)
        weight[_strip(group, cell // 2, cells // 2), output, at[0], at[1]] = value * share


def _draw_maps(state: dict[str, Tensor], opening: float) -> None:
    """Add the strips up to the maps in block 5, 48×48, and interpolate them to 96×96 in block 6."""
    steps = np.arange(_CELLS) * (FACE_SIZE / _CELLS)
    y, x = steps - MIDDLE[0], np.abs(steps - MIDDLE[1])
    drop = DROP * opening * _ellipse(x, HALF_WIDTH)
    distance = np.minimum(RANGE, np.where(y < 0, -y / RISE, y))  # from the middle, counted as a drop
    none = np.zeros(_CELLS)
    corner = HALF_WIDTH + LIP_CORNER
    profiles: dict[int, tuple[Profile, ...]] = {  # one per group of strips
        _INSIDE: (drop, none, OFFSET - _beyond(x, HALF_WIDTH), -distance),
        _INSIDE_LIPS: (drop, LIP * _ellipse(x, corner), OFFSET - _beyond(x, corner), -distance),
        _ABOVE_TEETH: (-RISE * drop, none, OFFSET + TEETH + none, -np.maximum(y, -HALF_WIDTH)),
    }
    weight = _up(state, 5)
    for output, groups in profiles.items():
        for group, profile in enumerate(groups):
            for cell, value in enumerate(profile):
                _copy_strip(weight, group, cell, _CELLS, output, float(value) / RANGE)
    weight[_UNIFORM, _LIGHT, 1:, 1:] = 1
    weight = _up(state, 6)
    for channel in (_INSIDE, _INSIDE_LIPS, _ABOVE_TEETH, _LIGHT):
        for row, down in _INTERPOLATED:
            for column, across in _INTERPOLATED:
                weight[channel, channel, row, column] = down * across


def _ellipse(x: Profile, half_width: float) -> Profile:
    """Return the height of an ellipse over x, 1 in the middle."""
    height: Profile = np.sqrt(np.maximum(0, 1 - (x / half_width) ** 2))
    return height


def _beyond(x: Profile, end: float) -> Profile:
    result: Profile = np.maximum(0, x - end)
    return result


def _paint(wiring: Wiring) -> None:
    """Turn the maps into paint from 0 to 1, in the two residual layers of the last decoder block.

    The first one computes what the paint lacks: 0 where it is opaque. So the inside of each paint is exact in int8.
    """
    maps = ((_INSIDE, HIDING), (_INSIDE_LIPS, LIPS), (_INSIDE, OPENING), (_ABOVE_TEETH, TOOTH))
    for output, (channel, (start, width)) in zip(_LACKS, maps, strict=True):
        scale = LACK_SCALE / width
        opaque = (OFFSET + start + width) * scale
        wiring.sum(_layer("face_decoder_blocks", 6, 1), output, {(channel, 0, 0): -RANGE * scale}, opaque)
    last = _layer("face_decoder_blocks", 6, 2)
    lacks = [{(channel, 0, 0): -1 / LACK_SCALE} for channel in _LACKS]
    for output, lack in zip((_HIDE, _LIPS, _OPENING), lacks[:3], strict=True):
        wiring.sum(last, output, lack, 1)
    wiring.sum(last, _TEETH, {**lacks[2], **lacks[3], (_LIGHT, 0, 0): 1})


def _mix(state: dict[str, Tensor]) -> None:
    """Compute the logits of the image, and apply the paint to them."""
    knots, slopes, start = _logit_segments()
    hinges, hinge_bias = state["output_block.0.conv_block.0.weight"], state["output_block.0.conv_block.0.bias"]
    logits, logit_bias = state["output_block.1.weight"], state["output_block.1.bias"]
    painted = FACE_DECODER[-1][-1].outputs  # number of paint channels, which precede those of the image
    lips, opening, teeth = range(3 * SEGMENTS, 3 * SEGMENTS + 3)
    for output, channel in ((lips, _LIPS), (opening, _OPENING), (teeth, _TEETH)):
        hinges[output, channel, 1, 1] = 1
    for color in range(3):
        for i, (knot, slope) in enumerate(zip(knots, slopes, strict=True)):
            hinge = SEGMENTS * color + i
            hinges[hinge, painted + color, 1, 1] = 1
            hinges[hinge, _HIDE, 1, 1] = -1.1  # no color is above 1, so nothing of a hidden one remains
            hinge_bias[hinge] = -float(knot)
            logits[color, hinge] = float(slope)
        logit_bias[color] = start
        dark = _logit(OPENING_COLOR[color])
        logits[color, lips] = -LIP_TINT[color]
        logits[color, opening] = dark - start + LIP_TINT[color]  # the lips are painted there, too
        logits[color, teeth] = (_logit(TEETH_COLOR[color]) - dark) / MEDIUM


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _logit_segments() -> tuple[Profile, Profile, float]:
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
