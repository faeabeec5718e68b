"""Judge a plan by the thresholds of every export, in each of its optimization profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..triton_config.profiles import PlanProfile
from ..validation import stored_samples
from ..validation.accuracy import ReferenceOutputs, Result
from ..variants import Precision

if TYPE_CHECKING:
    from ..validation.runtimes import Run


def judge(
    references: ReferenceOutputs,
    precision: Precision,
    profiles: Sequence[PlanProfile],
    load: Callable[[int], Run],
) -> list[Result]:
    """Compare a plan with the network in PyTorch; the results name the optimization profile.

    TensorRT chooses kernels for each profile, so each is run. Where all its batches are larger than those of the
    samples, the samples are repeated up to its smallest batch.

    Args:
        references: samples, and the network's outputs for them.
        precision: of the export, which decides the threshold.
        profiles: the plan's.
        load: returns a run of the plan in the profile of a number.

    Raises:
        ExportError: the plan cannot run, or its outputs have other shapes or types.
    """
    results = []
    for number, profile in enumerate(profiles):
        smallest = next(iter(profile.smallest.values()))[0]
        fitting = stored_samples.for_batches(references, smallest)
        for result in fitting.compare(load(number), precision):
            results.append(replace(result, samples=f"{result.samples} in profile {number}"))
    return results
