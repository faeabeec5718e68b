"""Report a run: as JSON, as Markdown tables, and as a chart. All three are written again after every step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from ..machine import Machine
from . import chart, goals
from .rows import Row, of_table
from .schedule import Outcome

# column of a row to heading, for each table of a report in its order
_GPU = {"gpu_percent": "GPU, %", "gpu_mib": "GPU, MiB", "gpu_watts": "GPU, W"}
TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "machine": ("Machine", {"name": "", "value": "value"}),
    "golden": (
        "Golden data behind the live server",
        {"what": "what", "unit": "unit", "value": "value", "limit": "at least", "passed": "passed"},
    ),
    "speed": (
        "wav2lip, frames per second",
        {
            "variant": "served as",
            "path": "path",
            "memory": "shared memory",
            "callers": "callers",
            "batch": "frames per request",
            "frames_per_second": "frames/s",
            "p50_ms": "p50, ms",
            "p95_ms": "p95, ms",
            "p99_ms": "p99, ms",
            "mean_batch": "mean batch",
            **_GPU,
        },
    ),
    "clips": (
        "Clips over HTTP, seconds",
        {
            "workload": "workload",
            "subject": "subject",
            "median": "median",
            "minimum": "min",
            "maximum": "max",
            "times_original": "original ÷",
            "stages": "stages (those of the service overlap)",
            **_GPU,
        },
    ),
    "verdicts": (
        "Ratios of the clips",
        {"workload": "workload", "goal": "goal", "limit": "limit", "value": "value", "met": "met"},
    ),
    "live": (
        "Live sessions, latency in milliseconds",
        {
            "sessions": "sessions",
            "frames_per_second": "frames/s",
            "median_ms": "median",
            "p95_ms": "p95",
            "p99_ms": "p99",
            "worst_ms": "worst",
            "late_percent": "late, %",
            "keeps_up": "keeps up",
            **_GPU,
        },
    ),
    "failures": ("Not measured", {"what": ""}),
}


def write(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write `gpu.json`, `gpu.md` and `gpu.png` into the folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"gpu.{suffix}" for suffix in ("json", "md", "png")]
    machine = Machine.current(card(outcomes))
    paths[0].write_text(as_json(machine, outcomes), "utf-8")
    paths[1].write_text(markdown(machine, outcomes), "utf-8")
    chart.draw(all_rows(outcomes), machine.text, paths[2])
    return paths


def all_rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return the rows of all steps."""
    return [row for outcome in outcomes for row in outcome.rows]


def card(outcomes: Sequence[Outcome]) -> str:
    """Return the name of the GPU, or an empty string."""
    names = [str(row["value"]) for row in of_table(all_rows(outcomes), "machine") if row["name"] == "GPU"]
    return next(iter(names), "")


def as_json(machine: Machine, outcomes: Sequence[Outcome]) -> str:
    """Return everything as JSON."""
    content = {
        "machine": asdict(machine),
        "goals": [asdict(verdict) for verdict in goals.verdicts(all_rows(outcomes))],
        "steps": [
            {
                "name": each.step.name,
                "title": each.step.title,
                "status": each.status,
                "reason": each.reason,
                "seconds": round(each.seconds, 1),
                "rows": each.rows,
            }
            for each in outcomes
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def markdown(machine: Machine, outcomes: Sequence[Outcome]) -> str:
    """Return the goals, the steps, and a table of each kind of rows that was measured."""
    rows = all_rows(outcomes)
    parts = [f"Measured on {machine.text}.", goal_table(rows), step_table(outcomes)]
    for name, (title, columns) in TABLES.items():
        if found := of_table(rows, name):
            parts += [f"## {title}", _table(found, columns)]
    return "\n\n".join(parts) + "\n"


def goal_table(rows: Sequence[Row]) -> str:
    """Return the goals and whether they are met."""
    cells = [(each.goal, _shown(each.limit), _shown(each.value), each.text) for each in goals.verdicts(rows)]
    return _markdown(("goal", "limit", "measured", ""), cells)


def step_table(outcomes: Sequence[Outcome]) -> str:
    """Return the steps, what became of them, and why."""
    cells = [
        (each.step.name, each.step.title, f"{each.seconds:.0f}", each.status, each.reason.replace("|", "/"))
        for each in outcomes
    ]
    return _markdown(("step", "what", "seconds", "outcome", "reason"), cells)


def text(outcome: Outcome) -> str:
    """Return the outcome of a step for the terminal."""
    line = f"{outcome.step.name}: {outcome.status} after {outcome.seconds:.0f} s"
    return f"{line}: {outcome.reason}" if outcome.reason else line


def row_text(row: Row) -> str:
    """Return a row in one line, for the terminal."""
    cells = {name: value for name, value in row.items() if name not in ("table", "stages") and value not in (None, "")}
    return f"  {row['table']}: " + ", ".join(f"{name} {_shown(value)}" for name, value in cells.items())


def _table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Return the rows as a table, without the columns that none of them has."""
    used = [name for name in columns if any(row.get(name) is not None for row in rows)]
    return _markdown([columns[name] for name in used], [[_shown(row.get(name)) for name in used] for row in rows])


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    return str(tabulate(cells, head, tablefmt="github", disable_numparse=True))


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, dict):
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in value.items())
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"
