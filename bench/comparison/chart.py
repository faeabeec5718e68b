"""The chart of a run: how many times faster than the original, and where the service's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .results import AGAIN, FIRST, ORIGINAL, Measured, figure

matplotlib.use("Agg")  # no display is asked for

BAR, GAP = 0.36, 0.02  # of the room that a work takes
NEW, SAME, MISSED, GOAL = "#2f6f9f", "#9ec4dd", "#c0392b", "#222222"
# Of the service's stages, and of whatever stage is new.
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#edc948", "#76b7b2", "#e15759", "#9c755f", "#bab0ac", "#ff9da7")


def draw(found: Sequence[Measured], caption: str, out: Path) -> None:
    """Write a PNG: a bar of its ratio for each work, on a logarithmic axis with its goal, and its stages."""
    shown = [each for each in found if each.work.forms == 1 and each.seconds(FIRST)]
    height = 1.9 + 0.62 * max(1, len(shown))  # inches
    sheet = Figure(figsize=(13, height), layout="constrained")
    left, right = sheet.subplots(1, 2, width_ratios=(1.15, 1), sharey=True)
    sheet.legend(handles=_ratios(left, shown), loc="outside lower left", ncols=4, fontsize=8, frameon=False)
    if marks := _stages(right, shown):
        sheet.legend(handles=marks, loc="outside lower right", ncols=4, fontsize=8, frameon=False)
    left.set_yticks(range(len(shown)), [_name(each) for each in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)
    sheet.suptitle(f"This service against the original algorithm\n{caption}", fontsize=10)
    sheet.savefig(out, dpi=130)


def _name(found: Measured) -> str:
    work = found.work
    return f"{work.kind} {work.width}×{work.height}, {work.seconds:g} s\n{found.variant}"


def _ratios(axes: Axes, shown: Sequence[Measured]) -> list[Artist]:
    axes.set_title("the original's time ÷ this service's", fontsize=10)
    furthest = 1.0
    for row, each in enumerate(shown):
        for who, colour, above in ((FIRST, NEW, True), (AGAIN, SAME, False)):
            ratio = each.ratio(ORIGINAL, who)
            if not ratio:
                continue
            y = row + (-1 if above else 1) * (BAR + GAP) / 2
            spread = [[ratio.median - ratio.least], [ratio.most - ratio.median]]
            axes.barh(y, ratio.median, BAR, color=colour, xerr=spread, error_kw={"ecolor": "#555555", "lw": 1})
            axes.text(ratio.most * 1.06, y, figure(ratio.median), va="center", fontsize=8)
            furthest = max(furthest, ratio.most)
        if goal := each.work.goals.first:
            met = each.speedup is None or each.speedup.median >= goal
            y = row - (BAR + GAP) / 2
            axes.plot([goal, goal], [y - BAR * 0.7, y + BAR * 0.7], color=GOAL if met else MISSED, lw=2.5)
            furthest = max(furthest, goal)
    axes.set_xscale("log")
    axes.set_xlim(0.7, furthest * 2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color="#999999", lw=1)
    axes.grid(axis="x", which="both", color="#eeeeee")
    axes.set_axisbelow(True)
    marks: list[Artist] = [
        Patch(color=NEW, label="a new avatar"),
        Patch(color=SAME, label="the same again"),
        Line2D([], [], color=GOAL, lw=2.5, label="goal"),
        Line2D([], [], color=MISSED, lw=2.5, label="goal, missed"),
    ]
    return marks


def _stages(axes: Axes, shown: Sequence[Measured]) -> list[Artist]:
    axes.set_title("seconds in each stage of a new avatar (they overlap; ◆ the whole)", fontsize=10)
    names = list(dict.fromkeys(name for each in shown for name in each.stages(FIRST)))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    for row, each in enumerate(shown):
        start = 0.0
        for name, seconds in each.stages(FIRST).items():
            axes.barh(row, seconds, 0.5, left=start, color=colours[name])
            start += seconds
        if whole := each.seconds(FIRST):
            axes.plot(whole.median, row, "D", color=GOAL, ms=5)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    return [Patch(color=colour, label=name) for name, colour in colours.items()]
