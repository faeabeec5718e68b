"""A stand-in for S3FD's weights: the true network with hand-set weights that find a patch of skin.

conv1 applies five tests to each pixel's color. conv2 to conv4 average the results to one skin value per 8 pixels.
conv5 and fc6 collect the row and the column through each cell. fc7 follows the skin from the cell to the left, right,
top and bottom. The three coarse heads are active: the four run lengths give the box, and long, even runs a high score.
The three fine heads are inactive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipsync.face_detection import CENTER_VARIANCE, PRIOR_SIDE, RGB_MEANS, SIZE_VARIANCE

from ..networks.s3fd import HEADS, S3FD
from .wiring import Taps, Wiring

# Five tests: (weights of R, G, B; the sum at which the test starts to pass; the sum at which it passes fully), in gray
# levels. Skin passes all five: redder than blue, not as yellow as brown hair, not as red as a flag, not as orange as
# orange cloth, and not dark.
SKIN = (
    ((1, 0, -1), 40, 50),
    ((1, -1, 0), 21, 27),
    ((-0.55, 1, 0), 2, 7),
    ((-1, 1, 0), -100, -90),
    ((1, 0, 0), 90, 105),
)
SMOOTH_SKIN = (0.3, 0.7)  # share of skin in a 3×3 neighborhood of 8 pixel cells; fills the holes of eyes and teeth
BAND_SKIN = (0.02, 0.98)  # share of skin across the band of 48 pixels that a run follows; nearly the full range, so
# that the last unit of a run shows where in it the skin ends, and the box moves smoothly with the face
UNIT = 16  # pixels; runs are counted in cells of conv5, the last one as a fraction
EDGE = 11.0  # pixels by which pooling and averaging move an edge outwards, measured on drawn faces
SIDES = {"left": (0, -1), "top": (-1, 0), "right": (0, 1), "bottom": (1, 0)}  # dy, dx
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Level:
    """One active head.

    The map itself has runs of up to `reach` units; the head covers one more cell, `step` units, on each side.

    Attributes:
        layer: the convolution whose map is the head's input.
        stride: pixels per cell.
        rise: units of run that the score requires on each side.
        margin: logit if all four runs have exactly that length; lower for coarser heads, so that the finest head
            that covers the whole face has the highest score.
        sizes: range of face widths in pixels to which the regression is fitted.
    """

    layer: str
    stride: int
    rise: int
    margin: float
    sizes: tuple[int, int]

    @property
    def step(self) -> int:
        """Return the units from one cell to the next."""
        return self.stride // UNIT

    @property
    def reach(self) -> int:
        """Return the longest run in the map itself, in units; the receptive field of the layers before it limits it."""
        return self.step + 3

    @property
    def count(self) -> int:
        """Return the longest run that the head covers, in units."""
        return self.reach + self.step

    @property
    def shift(self) -> float:
        """Return the pixels from the center of a prior to the center of the cell's receptive field.

        fc6 pads by two cells of 32 too many, and a convolution of stride 2 is centered on the first of two cells.
        """
        return -64 - (self.stride - 32) / 2


LEVELS = (
    Level("fc7", 32, rise=1, margin=6, sizes=(45, 200)),
    Level("conv6_2", 64, rise=3, margin=4.5, sizes=(80, 320)),
    Level("conv7_2", 128, rise=3, margin=2.5, sizes=(120, 560)),
)


def state() -> dict[str, Tensor]:
    """Return the stand-in's state dict, with exactly S3FD's tensors; takes about half a second."""
    with torch.device("meta"):
        net = S3FD()
    wiring = Wiring({name: torch.zeros(tensor.shape) for name, tensor in net.state_dict().items()})
    _detect_skin(wiring)
    _collect_profiles(wiring)
    _follow_runs(wiring)
    for head in HEADS:
        level = next((level for level in LEVELS if level.layer == head.name), None)
        if level:
            _set_head(wiring, head.head, level)
        else:
            wiring.bias(f"{head.head}_mbox_conf", head.backgrounds, -20)
    return wiring.state


def _detect_skin(wiring: Wiring) -> None:
    """Set conv1_1 to conv4_3: channel 0 becomes the share of skin, 0 or 1 except at edges."""
    tests = []
    for i, (weights, start, end) in enumerate(SKIN):
        mean = sum(w * m for w, m in zip(weights, RGB_MEANS, strict=True))  # the inputs are colors minus these means
        taps = {(channel, 0, 0): float(weight) for channel, weight in enumerate(weights)}
        tests.append(wiring.ramp("conv1_1", 2 * i, taps, start - mean, end - mean))
    wiring.all_of("conv1_2", 0, tests)
    for layer in ("conv2_1", "conv3_1"):
        wiring.sum(layer, 0, _mean())
    for layer in ("conv2_2", "conv3_2", "conv3_3"):
        wiring.sum(layer, 0, {(0, 0, 0): 1})
    wiring.sum("conv4_1", 0, _mean())
    skin = wiring.ramp("conv4_2", 0, _mean(), *SMOOTH_SKIN)
    wiring.sum("conv4_3", 0, skin)


def _mean() -> Taps:
    return {(0, dy, dx): 1 / 9 for dy in (-1, 0, 1) for dx in (-1, 0, 1)}


def _band(axis: int, offset: int) -> int:
    """Return the channel with the skin of the row (axis 0) or column (axis 1), `offset` units from the cell."""
    return 2 * (offset + 5) + axis


def _along(axis: int, offset: int, across: int = 0) -> tuple[int, int]:
    """Return dy and dx of a step along the row or the column."""
    return (across, offset) if axis == 0 else (offset, across)


def _collect_profiles(wiring: Wiring) -> None:
    """Set conv5_1 to conv5_3: each cell gets the skin along its row and column, three cells to each side."""
    for axis in (0, 1):
        for offset in range(-3, 4):
            near = max(-1, min(1, offset))
            band = {(0, *_along(axis, near, across)): 1 / 3 for across in (-1, 0, 1)}
            wiring.sum("conv5_1", _band(axis, near), band)
        for layer, known in (("conv5_2", 1), ("conv5_3", 2)):
            for offset in range(-known - 1, known + 2):
                have = max(-known, min(known, offset))
                wiring.sum(layer, _band(axis, offset), {(_band(axis, have), *_along(axis, offset - have)): 1})


def _run(side: str, length: int) -> int:
    """Return the channel that is 1 if skin extends `length` units from the cell to that side."""
    return 4 * (length - 1) + list(SIDES).index(side)


def _joined_run(side: str, length: int) -> int:
    """Return the channel that also requires skin for a whole cell to the opposite side."""
    return 128 + _run(side, length)


def _follow_runs(wiring: Wiring) -> None:
    """Set fc6 to conv7_2: how far skin extends from each cell in each direction, up to the reach of each level."""
    clear: dict[tuple[int, int], Taps] = {}
    for axis in (0, 1):
        for offset in range(-5, 6):
            cells = max(-1, min(1, int(offset / 4)))  # beyond ±3 units the next cell of fc6 has the value
            taps = {(_band(axis, offset - 2 * cells), *_along(axis, cells)): 1.0}
            clear[axis, offset] = wiring.ramp("fc6", 2 * _band(axis, offset), taps, *BAND_SKIN)

    def first(side: str, length: int) -> list[Taps]:
        dy, dx = SIDES[side]
        return [clear[abs(dy), step * (dy + dx)] for step in range(length + 1)]

    _wire_runs(wiring, LEVELS[0], first)
    for carrier, below, level in (("conv6_1", LEVELS[0], LEVELS[1]), ("conv7_1", LEVELS[1], LEVELS[2])):
        for side in SIDES:
            for length in range(1, below.reach + 1):
                wiring.sum(carrier, _run(side, length), {(_run(side, length), 0, 0): 1})
        _wire_runs(wiring, level, partial(_further, below))


def _further(below: Level, side: str, length: int) -> list[Taps]:
    """Return a run in terms of the level below: the same cell's run, and beyond its reach the next cell's."""
    here: Taps = {(_run(side, min(length, below.reach)), 0, 0): 1}
    if length <= below.reach:
        return [here]
    return [here, {(_run(side, length - below.step), *SIDES[side]): 1}]


def _wire_runs(wiring: Wiring, level: Level, terms: Callable[[str, int], list[Taps]]) -> None:
    for side in SIDES:
        for length in range(1, level.reach + 1):
            wiring.all_of(level.layer, _run(side, length), terms(side, length))
        # the head reads these from the next cell, so they count only if skin extends back to its own cell
        for length in range(level.reach - level.step + 1, level.reach + 1):
            back = terms(OPPOSITE[side], level.step)
            wiring.all_of(level.layer, _joined_run(side, length), [*terms(side, length), *back])


def _set_head(wiring: Wiring, head: str, level: Level) -> None:
    """Set the score and the box of one head, which are weighted sums of the runs."""
    lengths = range(1, level.count + 1)
    scores, sizes = _score_weights(level), _size_weights(level)
    taps = {_run_tap(level, side, length): scores[length - 1] for side in SIDES for length in lengths}
    wiring.sum(f"{head}_mbox_conf", 1, taps, level.margin - 4 * sum(scores[: level.rise]))
    variance = CENTER_VARIANCE * PRIOR_SIDE * level.stride  # pixels by which 1 in the regression moves the center
    for axis, (less, more) in enumerate((("left", "right"), ("top", "bottom"))):
        centre, size = {}, {}
        for length in lengths:
            for side, sign in ((less, -1), (more, 1)):
                centre[_run_tap(level, side, length)] = sign * UNIT / 2 / variance
                size[_run_tap(level, side, length)] = float(sizes[length])
        wiring.sum(f"{head}_mbox_loc", axis, centre, level.shift / variance)
        wiring.sum(f"{head}_mbox_loc", axis + 2, size, float(sizes[0]))


def _run_tap(level: Level, side: str, length: int) -> tuple[int, int, int]:
    """Return the tap from which the head reads a run: in its own cell, or beyond its reach in the next one."""
    if length <= level.reach:
        return (_run(side, length), 0, 0)
    return (_joined_run(side, length - level.step), *SIDES[side])


def _score_weights(level: Level) -> list[float]:
    """Return what each further unit of a run adds to the logit: less and less, so that even runs have the best score.

    A run up to the limit of the head's range belongs to a face that is too large for this head.
    """
    even = [0.4 * (1 - length / level.count) for length in range(1, level.count + 1)]
    return [3.0] * level.rise + even[level.rise : -2] + [-3.0, -12.0]


def _size_weights(level: Level) -> NDArray[np.float64]:
    """Return a constant, and what each unit of the two runs along an axis adds to the logarithm of the size.

    They are fitted by ridge regression to faces of the level's sizes, whose center is up to half a cell away.
    """
    sizes, offsets = np.geomspace(*level.sizes, 40), np.linspace(0, level.stride / 2, 9)
    size, offset = (grid.ravel() for grid in np.meshgrid(sizes, offsets))
    ends = np.stack((size / 2 - offset, size / 2 + offset))[..., None]
    runs = np.clip((ends + EDGE) / UNIT - 0.5 - np.arange(level.count), 0, 1).sum(axis=0)
    features = np.concatenate((np.ones((len(size), 1)), runs), axis=1)
    wanted = np.log(size / (PRIOR_SIDE * level.stride)) / SIZE_VARIANCE
    weights: NDArray[np.float64] = np.linalg.solve(
        features.T @ features + 0.3 * np.eye(level.count + 1), features.T @ wanted
    )
    return weights
