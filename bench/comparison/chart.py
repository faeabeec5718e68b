"""Draw the chart of a run: the speed-up over the original, and the time of each stage of the service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .results import CACHED_AVATAR, NEW_AVATAR, ORIGINAL, WorkloadResult, three_digits

matplotlib.use("Agg")  # needs no display

BAR, GAP = 0.36, 0.02  # height of a bar, and gap, as a part of a row
NEW, CACHED, MISSED, GOAL = "#2f6f9f", "#9ec4dd", "#c0392b", "#222222"
# of the stages
COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#edc948", "#76b7b2", "#e15759", "#9c755f", "#bab0ac", "#ff9da7")


def draw(found: Sequence[WorkloadResult], caption: str, out: Path) -> None:
    """Write a PNG with a row per workload: its ratios on a logarithmic axis, its goal, and its stages."""
    torch.set_flush_denormal(False)  # the measured networks set it for this thread; NumPy's limits need denormals
    shown = [each for each in found if each.workload.forms == 1 and each.seconds(NEW_AVATAR)]
    height = 1.9 + 0.62 * max(1, len(shown))  # inches
    sheet = Figure(figsize=(13, height), layout="constrained")
    left, right = sheet.subplots(1, 2, width_ratios=(1.15, 1), sharey=True)
    sheet.legend(handles=_ratios(left, shown), loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    if marks := _stages(right, shown):
        sheet.legend(handles=marks, loc="outside lower right", ncols=4, fontsize=8, frameon=False)
    left.set_yticks(range(len(shown)), [_name(each) for each in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)
    sheet.suptitle(f"This service and the original algorithm\n{caption}", fontsize=10)
    sheet.savefig(out, dpi=130)


def _name(found: WorkloadResult) -> str:
    workload = found.workload
    return f"{workload.kind} {workload.width}×{workload.height}, {workload.seconds:g} s\n{found.variant}"


def _ratios(axes: Axes, shown: Sequence[WorkloadResult]) -> list[Artist]:
    axes.set_title("time of the original ÷ time of this service", fontsize=10)
    largest = 1.0
    for row, each in enumerate(shown):
        for subject, color, above in ((NEW_AVATAR, NEW, True), (CACHED_AVATAR, CACHED, False)):
            ratio = each.ratio(ORIGINAL, subject)
            if not ratio:
                continue
            y = row + (-1 if above else 1) * (BAR + GAP) / 2
            spread = [[ratio.median - ratio.minimum], [ratio.maximum - ratio.median]]
            axes.barh(y, ratio.median, BAR, color=color, xerr=spread, error_kw={"ecolor": "#555555", "lw": 1})
            axes.text(ratio.maximum * 1.06, y, three_digits(ratio.median), va="center", fontsize=8)
            largest = max(largest, ratio.maximum)
        if goal := each.workload.goals.speedup:
            met = each.speedup is None or each.speedup.median >= goal
            y = row - (BAR + GAP) / 2
            axes.plot([goal, goal], [y - BAR * 0.7, y + BAR * 0.7], color=GOAL if met else MISSED, lw=2.5)
            largest = max(largest, goal)
    axes.set_xscale("log")
    axes.set_xlim(0.7, largest * 2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color="#999999", lw=1)
    axes.grid(axis="x", which="both", color="#eeeeee")
    axes.set_axisbelow(True)
    marks: list[Artist] = [
        Patch(color=NEW, label="new avatar"),
        Patch(color=CACHED, label="same avatar"),
        Line2D([], [], color=GOAL, lw=2.5, label="goal"),
        Line2D([], [], color=MISSED, lw=2.5, label="missed goal"),
    ]
    return marks


def _stages(axes: Axes, shown: Sequence[WorkloadResult]) -> list[Artist]:
    axes.set_title("seconds per stage with a new avatar (stages overlap; ◆ total time)", fontsize=10)
    names = list(dict.fromkeys(name for each in shown for name in each.stages(NEW_AVATAR)))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    for row, each in enumerate(shown):
        start = 0.0
        for name, seconds in each.stages(NEW_AVATAR).items():
            axes.barh(row, seconds, 0.5, left=start, color=colors[name])
            start += seconds
        if whole := each.seconds(NEW_AVATAR):
            axes.plot(whole.median, row, "D", color=GOAL, ms=5)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    return [Patch(color=color, label=name) for name, color in colors.items()]
