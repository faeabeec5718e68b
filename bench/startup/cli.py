"""`python -m bench startup`: what a job costs before its first frame, of this checkout and of another commit."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..cli import DONE, add_json_output, positive_int
from ..machine import Machine
from .measure import Result, compare, extract, workloads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `startup`."""
    parser.description = (
        "Run whole jobs whose networks answer at once, and time them until the first frame is in the encoder: probing, "
        "decoding, loading, and starting the encoder. With --against, the jobs of another commit run in turn with "
        "those of this checkout; compare the ratios. No Triton is needed."
    )
    parser.add_argument("--against", metavar="COMMIT", help="also measure this commit of the repository")
    parser.add_argument("--rounds", type=positive_int, default=15, metavar="N", help="jobs of each kind (default: 15)")
    add_json_output(parser, "startup.json")


def run(args: argparse.Namespace) -> int:
    """Measure; print and write the result."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "before").mkdir()
        before = extract(args.against, folder / "before") if args.against else None
        results = []
        print(header())
        for result in compare(workloads(folder), before, args.rounds):
            print(line(result), flush=True)
            results.append(result)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(as_json(results, args.against), "utf-8")
    print(f"written: {os.path.relpath(args.out)}")
    return DONE


def header() -> str:
    """Return the head of the table."""
    return (
        "| job | ms to the first frame | ratio | ms in all | ratio | processor ms | ratio | processes |\n"
        "|---|---|---|---|---|---|---|---|"
    )


def line(result: Result) -> str:
    """Return a line of the table: medians, before and after."""
    cells = [result.workload]
    for measure in ("first", "total", "cpu"):
        cells.append(_change(result, measure, 1000))
        cells.append(f"{result.ratio(measure):.2f}" if result.before else "")
    return f"| {' | '.join([*cells, _change(result, 'processes', 1)])} |"


def _change(result: Result, measure: str, factor: float) -> str:
    sides = [side for side in (result.before, result.after) if side]
    return " → ".join(f"{factor * statistics.median(getattr(run, measure) for run in side):.0f}" for side in sides)


def as_json(results: Sequence[Result], against: str | None) -> str:
    """Return the machine and every run."""
    content = {"machine": Machine.current().text, "against": against, "results": [asdict(each) for each in results]}
    return json.dumps(content, indent=1) + "\n"
