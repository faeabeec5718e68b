"""Report the measurements: as text on the terminal, as JSON, as Markdown tables for the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..machine import Machine
from . import chart
from .memory_monitor import Peak
from .results import (
    CACHED_AVATAR,
    COLD,
    CONCURRENT,
    ENCODER,
    NEW_AVATAR,
    ORIGINAL,
    SEQUENTIAL,
    Spread,
    WorkloadResult,
    bare_networks,
    three_digits,
)

MIB = 1 << 20


def write(results: Sequence[WorkloadResult], out: Path, gpu: str = "") -> list[Path]:
    """Write all measurements to `out` (JSON), and tables (.md) and a chart (.png) next to it; return the paths."""
    machine = Machine.current(gpu)
    out.parent.mkdir(parents=True, exist_ok=True)
    tables, image = out.with_suffix(".md"), out.with_suffix(".png")
    out.write_text(as_json(machine, results), "utf-8")
    tables.write_text(markdown(machine, results), "utf-8")
    chart.draw(results, machine.text, image)
    return [out, tables, image]


def text(result: WorkloadResult) -> str:
    """Return the report of one workload for the terminal."""
    workload = result.workload
    lines = [
        "",
        f"{workload.name}: {workload.description}, {result.frames} frames each, served as {result.variant or '?'}",
    ]
    if result.timings:
        lines += [f"{'':<28}{'median':>10}{'min':>10}{'max':>10}   original ÷ (min … max)"]
    for subject in result.subjects:
        if took := result.seconds(subject):
            ratio = result.ratio(ORIGINAL, subject)
            lines.append(
                f"{subject:<28}{_row(took)}   {_spread(ratio) if ratio and subject != ORIGINAL else ''}".rstrip()
            )
    lines += [f"  goal: {verdict.text}" for verdict in result.verdicts()]
    lines += [
        f"  stages, {subject}: {_stages(result.stages(subject))}"
        for subject in result.subjects
        if result.stages(subject)
    ]
    waits = [each.waits for each in result.timings if each.subject == CONCURRENT]
    lines += [f"  response times, concurrent: {' '.join(f'{one:.2f}' for one in sorted(waits[-1]))} s"] if waits else []
    lines += [f"  memory: {'; '.join(_peak(*each) for each in result.memory.items())}"] if result.memory else []
    lines += [f"  scaled: {_scaled(result)}"] if result.scaled else []
    lines += [f"  FAILED: {result.failure}"] if result.failure else []
    return "\n".join(lines)


def as_json(machine: Machine, results: Sequence[WorkloadResult]) -> str:
    """Return every single measurement, and what follows from them, as JSON."""
    return json.dumps({"machine": asdict(machine), "workloads": [_entry(each) for each in results]}, indent=2) + "\n"


def markdown(machine: Machine, results: Sequence[WorkloadResult]) -> str:
    """Return the tables for the documentation."""
    found = [each for each in results if each.timings]
    single, many = (
        [each for each in found if each.workload.forms == 1],
        [each for each in found if each.workload.forms > 1],
    )
    parts = [f"Measured on {machine.text}. Medians, with the minimum and the maximum of all rounds."]
    if single:
        parts += [_times(single), _goals(single)]
    if many:
        parts += [_together(many)]
    if notes := [f"- {each.workload.name}: {_scaled(each)}" for each in found if each.scaled]:
        parts += ["Scaled, because only a part was processed:", "\n".join(notes)]
    parts += [_stage_table(single)] if single else []
    parts += [_memory(found)] if any(each.memory for each in found) else []
    return "\n\n".join(parts) + "\n"


def _times(found: Sequence[WorkloadResult]) -> str:
    head = ("workload", "served as", "original, s", "cold, s", "new avatar, s", "original ÷", "same avatar, s")
    rows = [
        (
            f"{each.workload.description} (`{each.workload.name}`)",
            each.variant,
            *(_median(each.seconds(subject)) for subject in (ORIGINAL, COLD, NEW_AVATAR)),
            f"**{_spread(each.speedup)}**" if each.speedup else "–",
            *(_median(each.seconds(subject)) for subject in (CACHED_AVATAR, bare_networks(each.served), ENCODER)),
        )
        for each in found
    ]
    return _table((*head, "bare networks, s", "encoder alone, s"), rows)


def _goals(found: Sequence[WorkloadResult]) -> str:
    rows = [
        (each.workload.name, f"{verdict.goal} {verdict.limit:g}", _or_dash(verdict.value), _met(verdict.met))
        for each in found
        for verdict in each.verdicts()
    ]
    return _table(("workload", "goal", "measured", ""), rows) if rows else "None of these workloads has a goal."


def _together(found: Sequence[WorkloadResult]) -> str:
    rows = [
        (
            f"{each.workload.description} (`{each.workload.name}`)",
            each.variant,
            *(_median(each.seconds(subject)) for subject in (SEQUENTIAL, CONCURRENT)),
            "; ".join(verdict.text for verdict in each.verdicts()),
        )
        for each in found
    ]
    return _table(("workload", "served as", f"{SEQUENTIAL}, s", f"{CONCURRENT}, s", "goals"), rows)


def _stage_table(found: Sequence[WorkloadResult]) -> str:
    rows = [
        (each.workload.name, subject, _stages(each.stages(subject)))
        for each in found
        for subject in (ORIGINAL, NEW_AVATAR, CACHED_AVATAR)
        if each.stages(subject)
    ]
    return _table(("workload", "subject", "stages (those of the service overlap)"), rows)


def _memory(found: Sequence[WorkloadResult]) -> str:
    rows = [
        (each.workload.name, "; ".join(_peak(*peak) for peak in each.memory.items())) for each in found if each.memory
    ]
    return _table(("workload", "peak resident memory, MiB; × number of processes"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _entry(result: WorkloadResult) -> dict[str, object]:
    ratios = {
        "original ÷ service": result.speedup,
        "same avatar ÷ (bare generator + encoder)": result.cached_ratio,
        "concurrent ÷ sequential": result.ratio(CONCURRENT, SEQUENTIAL),
        "longest ÷ mean response time": result.unfairness,
        "frames/s ÷ x264 alone": result.encoder_ratio,
    }
    return {
        "name": result.workload.name,
        **asdict(result),
        "seconds": {subject: asdict(took) for subject in result.subjects if (took := result.seconds(subject))},
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items() if ratio},
        "stages": {subject: result.stages(subject) for subject in result.subjects},
        "goals": [asdict(verdict) for verdict in result.verdicts()],
    }


def _scaled(result: WorkloadResult) -> str:
    parts = [f"{what} from {part} of {whole} frames" for what, (part, whole) in result.scaled.items()]
    return "; ".join(parts) + (f"; the original's detector has a batch size of {result.batch}" if result.batch else "")


def _row(took: Spread) -> str:
    return "".join(f"{value:>8.2f} s" for value in (took.median, took.minimum, took.maximum))


def _spread(found: Spread | None) -> str:
    return (
        f"{three_digits(found.median)} ({three_digits(found.minimum)} … {three_digits(found.maximum)})"
        if found
        else "–"
    )


def _median(found: Spread | None) -> str:
    return _or_dash(found.median if found else None)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else three_digits(value)


def _met(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "**MISSED**"


def _stages(stages: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())


def _peak(name: str, peak: Peak) -> str:
    return f"{name} {peak.bytes / MIB:,.0f}{f' ×{peak.processes}' if peak.processes > 1 else ''}"
