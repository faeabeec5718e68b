"""The record of a soak as Markdown."""

from __future__ import annotations

import statistics
from dataclasses import fields

from tests.soak.soak import SoakResult


def markdown(result: SoakResult) -> str:
    """Return the tables of a result."""
    lines = [f"{result.seconds / 60:.1f} minutes.", "", "| caller | outcome | calls |", "|---|---|--:|"]
    lines += [f"| {caller} | {outcome} | {n} |" for (caller, outcome), n in sorted(result.outcomes.counts.items())]
    lines += ["", "| fault | times | seconds to the next good form, median | worst |", "|---|--:|--:|--:|"]
    for name, seconds in sorted(result.outcomes.recoveries.items()):
        lines.append(f"| {name} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    if result.baseline and result.end:
        lines += ["", "| at rest | baseline | end |", "|---|--:|--:|"]
        for field in fields(result.baseline):
            name = field.name.replace("_", " ").replace("mib", "(MiB)")
            lines.append(f"| {name} | {getattr(result.baseline, field.name)} | {getattr(result.end, field.name)} |")
    lines += ["", f"Failures: {len(result.outcomes.failures) or 'none'}."]
    lines += [f"- `{line}`" for line in result.outcomes.failures[:50]]
    return "\n".join(lines) + "\n"
