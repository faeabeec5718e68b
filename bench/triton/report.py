"""What `python -m bench perf` found: a table, a JSON file, a chart."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from tabulate import tabulate

from lipsync.triton.cpu import usable_cores

from . import overhead as serving
from .perf_analyzer import Figures, Load

COLUMNS = ("model", "batch", "shared memory", "callers", "frames/s", "p50 ms", "p95 ms", "p99 ms")
TIMES = ("network ms", "queue ms", "compute ms")
_COLOURS = {"none": "#0072b2", "system": "#d55e00"}  # told apart by the colour-blind too
_MARKERS = {"none": "o", "system": "s"}
_PANELS_WIDE = 4


@dataclass(frozen=True)
class Measured:
    """One measurement; `frames`: of a video, that one request (of a net that batches, a row) does its part for."""

    load: Load
    frames: float
    figures: Figures

    @property
    def frames_a_second(self) -> float:
        """Of all callers."""
        return self.figures.inferences_a_second * self.frames


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        rows: in the order in which they were measured.
        failures: a line each.
        served_as: net to its backend and precision.
        overhead: wav2lip through gRPC against bare onnxruntime, where that was measured.
    """

    rows: Sequence[Measured]
    failures: Sequence[str]
    served_as: Mapping[str, str]
    overhead: serving.Overhead | None = None

    def with_overhead(self, overhead: serving.Overhead) -> Report:
        """The same, and that."""
        return replace(self, overhead=overhead)


def text(report: Report) -> str:
    """The table and what belongs to it, as Markdown."""
    nets = ", ".join(f"{name} {what}" for name, what in report.served_as.items())
    parts = [f"Nets: {nets}. {usable_cores()} cores here.", table(report.rows)]
    if report.failures:
        parts.append("\n".join(("Not measured:", *(f"- {failure}" for failure in report.failures))))
    if report.overhead:
        parts.append(serving.text(report.overhead))
    return "\n\n".join(parts)


def table(rows: Sequence[Measured]) -> str:
    """One row a measurement; docs/perf.md says what the columns mean."""
    cells = []
    for row in rows:
        figures = row.figures
        waits = (figures.p50_ms, figures.p95_ms, figures.p99_ms)
        what = (row.load.model.name, row.load.batch, row.load.memory, row.load.callers)
        cells.append((*what, *(_shown(value) for value in (row.frames_a_second, *waits, *_parts(row).values()))))
    headers = (*COLUMNS, *TIMES)
    aligned = ("left", "right", "left", *["right"] * (len(headers) - 3))
    if not cells:
        return "Nothing was measured."
    return str(tabulate(cells, headers, tablefmt="github", colalign=aligned, disable_numparse=True))


def write(report: Report, folder: Path) -> list[Path]:
    """`perf.md`, `perf.json` and, where there is something to draw, `perf.png`; gives back what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "perf.md", folder / "perf.json"]
    written[0].write_text(text(report) + "\n", "utf-8")
    whole = {
        "machine": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "nets": dict(report.served_as),
        "measurements": [_flat(row) for row in report.rows],
        "failures": list(report.failures),
        "serving": report.overhead.as_json() if report.overhead else None,
    }
    written[1].write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    if report.rows:
        written.append(folder / "perf.png")
        chart(report.rows).savefig(written[-1], dpi=110)
    return written


def chart(rows: Sequence[Measured]) -> Figure:
    """A panel a model: frames a second over callers, a line for each way that tensors travel."""
    by_model = [(name, list(group)) for name, group in groupby(rows, lambda row: row.load.model.name)]
    wide = min(_PANELS_WIDE, len(by_model))
    high = math.ceil(len(by_model) / wide)
    figure = Figure(figsize=(3.4 * wide + 0.4, 2.7 * high + 0.9), layout="constrained")
    panels: Iterator[Axes] = iter(figure.subplots(high, wide, squeeze=False).flat)
    for (name, measured), panel in zip(by_model, panels, strict=False):
        _draw(panel, name, measured)
    for panel in panels:
        panel.set_visible(False)
    lines = {line.get_label(): line for panel in figure.axes for line in panel.get_lines()}
    figure.legend(
        lines.values(),
        [f"shared memory: {label}" for label in lines],
        loc="outside upper right",
        ncols=len(lines),
        frameon=False,
    )
    figure.suptitle("Frames a second through gRPC", x=0.01, ha="left")
    figure.supxlabel("requests in flight", fontsize=10)
    return figure


def _draw(panel: Axes, name: str, rows: Sequence[Measured]) -> None:
    for memory, colour in _COLOURS.items():
        points = [(row.load.callers, row.frames_a_second) for row in rows if row.load.memory == memory]
        if points:
            marker = _MARKERS[memory]
            panel.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=memory)
    callers = sorted({row.load.callers for row in rows})
    panel.set_title(name, fontsize=10, loc="left")
    panel.set_xscale("log", base=2)
    panel.set_xticks(callers, [str(number) for number in callers])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    panel.set_ylim(0, 1.15 * max(row.frames_a_second for row in rows) or 1)
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _parts(row: Measured) -> dict[str, float | None]:
    """What a request's time is made of; unknown of a model that streams (see `Figures`)."""
    figures = row.figures
    parts = {"network_ms": figures.network_ms, "queue_ms": figures.queue_ms, "compute_ms": figures.compute_ms}
    return {name: None if row.load.model.streams else value for name, value in parts.items()}


def _flat(row: Measured) -> dict[str, object]:
    load = {"model": row.load.model.name, "batch": row.load.batch, "memory": row.load.memory}
    frames = {"callers": row.load.callers, "frames": row.frames, "frames_a_second": row.frames_a_second}
    return load | frames | asdict(row.figures) | _parts(row)


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
