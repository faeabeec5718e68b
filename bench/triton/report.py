"""Report the measurements of `python -m bench perf`: a table, a JSON file, a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from tabulate import tabulate

from lipsync.triton.cpu import usable_cores

from ..machine import processor_name
from .overhead import Overhead
from .overhead import text as overhead_text
from .perf_analyzer import Load, PerfMetrics

COLUMNS = ("model", "batch", "shared memory", "callers", "frames/s", "p50 ms", "p95 ms", "p99 ms")
TIMES = ("network ms", "queue ms", "compute ms")
_COLORS = {"none": "#0072b2", "system": "#d55e00"}  # distinguishable for the color-blind
_MARKERS = {"none": "o", "system": "s"}
_PANELS_WIDE = 4


@dataclass(frozen=True)
class Measurement:
    """One measurement; `frames`: video frames that a request (or, for a batching network, a row of it) covers."""

    load: Load
    frames: float
    metrics: PerfMetrics

    @property
    def frames_per_second(self) -> float:
        """Frames per second of all callers."""
        return self.metrics.inferences_per_second * self.frames


@dataclass(frozen=True)
class Report:
    """All measurements of a run.

    Attributes:
        rows: in the order of the measurements.
        failures: one line per load that failed.
        networks: name to backend and precision.
        overhead: wav2lip through gRPC against bare onnxruntime, if it was measured.
    """

    rows: Sequence[Measurement]
    failures: Sequence[str]
    networks: Mapping[str, str]
    overhead: Overhead | None = None

    def with_overhead(self, overhead: Overhead) -> Report:
        """Return this report with the overhead added."""
        return replace(self, overhead=overhead)


def text(report: Report) -> str:
    """Return the table, the failures and the overhead as Markdown."""
    served = ", ".join(f"{name} {what}" for name, what in report.networks.items())
    parts = [f"Networks: {served}. {usable_cores()} cores.", table(report.rows)]
    if report.failures:
        parts.append("\n".join(("Not measured:", *(f"- {failure}" for failure in report.failures))))
    if report.overhead:
        parts.append(overhead_text(report.overhead))
    return "\n\n".join(parts)


def table(rows: Sequence[Measurement]) -> str:
    """Return a table with one row per measurement; docs/performance/perf-analyzer.md explains the columns."""
    cells = []
    for row in rows:
        metrics = row.metrics
        latencies = (metrics.p50_ms, metrics.p95_ms, metrics.p99_ms)
        load = (row.load.model.name, row.load.batch, row.load.memory, row.load.callers)
        cells.append((*load, *(_shown(value) for value in (row.frames_per_second, *latencies, *_parts(row).values()))))
    headers = (*COLUMNS, *TIMES)
    aligned = ("left", "right", "left", *["right"] * (len(headers) - 3))
    if not cells:
        return "Nothing was measured."
    return str(tabulate(cells, headers, tablefmt="github", colalign=aligned, disable_numparse=True))


def write(report: Report, folder: Path) -> list[Path]:
    """Write `perf.md`, `perf.json` and, if anything was measured, `perf.png`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "perf.md", folder / "perf.json"]
    written[0].write_text(text(report) + "\n", "utf-8")
    whole = {
        "machine": processor_name(),
        "cores": usable_cores(),
        "networks": dict(report.networks),
        "measurements": [_flat(row) for row in report.rows],
        "failures": list(report.failures),
        "serving": report.overhead.as_json() if report.overhead else None,
    }
    written[1].write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
    if report.rows:
        written.append(folder / "perf.png")
        chart(report.rows).savefig(written[-1], dpi=110)
    return written


def chart(rows: Sequence[Measurement]) -> Figure:
    """Return a chart with a panel per model: frames per second over callers, one line per kind of shared memory."""
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
    figure.suptitle("Frames per second through gRPC", x=0.01, ha="left")
    figure.supxlabel("concurrent requests", fontsize=10)
    return figure


def _draw(panel: Axes, name: str, rows: Sequence[Measurement]) -> None:
    for memory, color in _COLORS.items():
        points = [(row.load.callers, row.frames_per_second) for row in rows if row.load.memory == memory]
        if points:
            marker = _MARKERS[memory]
            panel.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=4, label=memory)
    callers = sorted({row.load.callers for row in rows})
    panel.set_title(name, fontsize=10, loc="left")
    panel.set_xscale("log", base=2)
    panel.set_xticks(callers, [str(number) for number in callers])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    panel.set_ylim(0, 1.15 * max(row.frames_per_second for row in rows) or 1)
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _parts(row: Measurement) -> dict[str, float | None]:
    """Return the parts of a request's time; they are unknown for a streaming model (see `PerfMetrics`)."""
    metrics = row.metrics
    parts = {"network_ms": metrics.network_ms, "queue_ms": metrics.queue_ms, "compute_ms": metrics.compute_ms}
    return {name: None if row.load.model.streams else value for name, value in parts.items()}


def _flat(row: Measurement) -> dict[str, object]:
    load = {"model": row.load.model.name, "batch": row.load.batch, "memory": row.load.memory}
    frames = {"callers": row.load.callers, "frames": row.frames, "frames_per_second": row.frames_per_second}
    return load | frames | asdict(row.metrics) | _parts(row)


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
