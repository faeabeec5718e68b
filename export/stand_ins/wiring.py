"""Set a network's weights by hand, one output channel at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

# (input channel, dy, dx) -> weight: a weighted sum of a kernel's inputs, dy and dx counted from its center
Taps = Mapping[tuple[int, int, int], float]


class Wiring:
    """A state dict of zeros whose output channels are set one at a time."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def bias(self, layer: str, output: int, value: float) -> None:
        """Set the bias of one output channel."""
        self.state[f"{layer}.bias"][output] = value

    def sum(self, layer: str, output: int, taps: Taps, bias: float = 0.0) -> None:
        """Make an output channel the weighted sum of `taps`, whose offsets count from the kernel's center."""
        weight = self.state[f"{layer}.weight"]
        middle = weight.shape[2] // 2
        for (channel, dy, dx), value in taps.items():
            weight[output, channel, middle + dy, middle + dx] = value
        self.bias(layer, output, bias)

    def ramp(self, layer: str, output: int, taps: Taps, start: float, end: float) -> Taps:
        """Set two channels whose difference, returned as taps, rises from 0 at `start` to 1 at `end` and stays at 1."""
        scaled = {tap: weight / (end - start) for tap, weight in taps.items()}
        self.sum(layer, output, scaled, -start / (end - start))
        self.sum(layer, output + 1, scaled, -end / (end - start))
        return {(output, 0, 0): 1.0, (output + 1, 0, 0): -1.0}

    def all_of(self, layer: str, output: int, terms: Iterable[Taps]) -> None:
        """Make an output channel 1 where all terms are 1, lower by the sum of what they lack, but at least 0."""
        terms = tuple(terms)
        taps: Counter[tuple[int, int, int]] = Counter()
        for term in terms:
            taps.update(term)  # a Counter adds floats too
        self.sum(layer, output, taps, 1 - len(terms))
