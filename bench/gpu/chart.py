"""Draw the chart of a run: frames per second by load, clips against their goals, and the latency of live sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import goals
from .rows import Row, number, of_table

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")  # for the color-blind
_PERCENTILES = ("median_ms", "p95_ms", "p99_ms", "worst_ms")


def draw(rows: Sequence[Row], caption: str, out: Path) -> None:
    """Write a PNG with three panels."""
    sheet = Figure(figsize=(14, 4.6), layout="constrained")
    speed, clips, live = sheet.subplots(1, 3, width_ratios=(1.4, 1, 1))
    _speed(speed, of_table(rows, "speed"))
    _clips(clips, of_table(rows, "clips"))
    _live(live, of_table(rows, "live"))
    for axes in (speed, clips, live):
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    sheet.suptitle(caption, fontsize=10)
    sheet.savefig(out, dpi=110)


def _speed(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a line per way to run `wav2lip`, over the frames that are in flight."""
    axes.set_title("wav2lip, frames per second", fontsize=10)
    lines: dict[str, dict[float, float]] = {}
    for row in rows:
        name = f"{row['variant']}, {row['path']}" + (f", memory {row['memory']}" if "memory" in row else "")
        flight = (number(row, "batch") or 0) * (number(row, "callers") or 1)
        points = lines.setdefault(name, {})
        points[flight] = max(points.get(flight, 0.0), number(row, "frames_per_second") or 0.0)
    for number_, (name, points) in enumerate(lines.items()):
        places = sorted(points)
        color = _COLORS[number_ % len(_COLORS)]
        axes.plot(places, [points[place] for place in places], "o-", color=color, ms=4, lw=1, label=name)
    axes.set_xlabel("frames in flight (callers × frames per request)", fontsize=8)
    axes.set_ylim(bottom=0)
    if lines:
        axes.set_xscale("log", base=2)
        if axes.get_ylim()[1] > goals.WAV2LIP_FRAMES / 4:  # on slower devices the line would flatten all others
            _draw_goal(axes, goals.WAV2LIP_FRAMES)
        axes.legend(fontsize=7, frameon=False)
    axes.grid(axis="y", color="#eeeeee")


def _clips(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a bar per subject: seconds, on a logarithmic axis."""
    axes.set_title("clips, seconds", fontsize=10)
    names = [f"{row['subject']}\n{row['workload']}" for row in rows]
    values = [number(row, "median") or 0.0 for row in rows]
    bars = axes.barh(range(len(rows)), values, 0.6, color=_COLORS[0])
    axes.bar_label(bars, [f"{value:.3g}" for value in values], fontsize=7, padding=2)
    axes.set_yticks(range(len(rows)), names, fontsize=6)
    axes.invert_yaxis()
    if rows:
        axes.set_xscale("log")
    axes.grid(axis="x", color="#eeeeee")


def _live(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the percentiles of the latency over the number of sessions."""
    axes.set_title("live sessions, latency in ms", fontsize=10)
    for place, name in enumerate(_PERCENTILES):
        points = [(number(row, "sessions") or 0.0, value) for row in rows if (value := number(row, name)) is not None]
        if points:
            label = name.removesuffix("_ms")
            axes.plot(*zip(*points, strict=True), "o-", color=_COLORS[place], ms=4, lw=1, label=label)
    axes.set_xlabel("sessions", fontsize=8)
    axes.set_ylim(bottom=0)
    if rows:
        _draw_goal(axes, goals.LIVE_MS)
        axes.legend(fontsize=7, frameon=False)
    axes.grid(axis="y", color="#eeeeee")


def _draw_goal(axes: Axes, value: float) -> None:
    axes.axhline(value, color="#222222", lw=1, ls="--")
