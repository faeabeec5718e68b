"""`python -m bench compare`: this service against the original algorithm, the bare networks and the encoder.

All are measured in turn on one machine, because other work on the machine slows all of them. So ratios are meaningful,
and seconds are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from demo.models import add_variant
from export.variants import Precision, Profile

from ..cli import DONE, FAILED, FAILURES, INTERRUPTED, positive_int, report_failure
from ..errors import UsageError
from ..machine import gpu_name
from ..paths import OUT, WORK
from . import report, workloads
from .results import WorkloadResult
from .runner import GENERATED_FRAMES, MEGAPIXELS, Runner
from .workloads import WORKLOADS, Workload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.description = (
        "Time this service over HTTP (a new avatar, then the same avatar again), the original algorithm (PyTorch "
        "eager, fp32, whole clips), the bare networks and the encoder alone, in turn on the same files. Print medians, "
        "ranges, ratios, goals, stages and peak memory. The first run exports the models."
    )
    _add_workload_options(parser.add_argument_group("workloads"))
    exported = parser.add_argument_group("exported models")
    exported.add_argument(
        "--profile",
        type=Profile,
        choices=list(Profile),
        default=Profile.CPU,
        help="kind of machine, as in `python -m export models` (default: cpu). With gpu the workloads are those "
        "in fp16, and the original algorithm runs on the GPU",
    )
    add_variant(exported)
    paths = parser.add_argument_group("paths")
    paths.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="models, media and logs (default: build/bench)"
    )
    paths.add_argument(
        "--out",
        type=Path,
        default=OUT / "bench.json",
        metavar="FILE",
        help="JSON file of all measurements; a chart (.png) and tables (.md) are written next to it "
        "(default: out/bench.json)",
    )


def _add_workload_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workloads",
        metavar="NAME,…",
        help="names as in --list; a name without -fp32, -int8 or -fp16 selects all of these (default: all with a goal, "
        "and an image and a video of each size)",
    )
    group.add_argument("--works", action=_OldName, dest="workloads", help=argparse.SUPPRESS)
    group.add_argument("--list", action="store_true", help="list the workloads and their goals, and exit")
    group.add_argument("--quick", action="store_true", help="only a few workloads, for a first look")
    group.add_argument(
        "--rounds", type=positive_int, default=3, metavar="N", help="rounds of each workload (default: 3)"
    )
    group.add_argument(
        "--sample",
        type=float,
        default=MEGAPIXELS,
        metavar="MEGAPIXELS",
        help="total size of the video frames in which the original algorithm detects faces per round; it generates "
        f"{GENERATED_FRAMES} frames. Times are scaled to the whole video (default: {MEGAPIXELS:g}; 0: the whole video)",
    )
    group.add_argument("--no-original", action="store_true", help="do not run the original algorithm")
    group.add_argument(
        "--field", action="append", default=[], metavar="NAME=VALUE", help="a further field of the form; repeatable"
    )


class _OldName(argparse.Action):
    """`--works`, accepted for one more release."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        report_failure("`--works` is the old name of `--workloads`; it will be removed")
        setattr(namespace, self.dest, values)


def run(args: argparse.Namespace) -> int:
    """Measure the chosen workloads; write what was measured even if a part fails or Ctrl-C ends the run."""
    try:
        chosen = _chosen(args)
        fields = dict(map(_field, args.field))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if args.list:
        print(listing(chosen))
        return DONE
    results: list[WorkloadResult] = []
    status = DONE
    try:
        for result in Runner(args, fields).measure(chosen):
            results.append(result)
            print(report.text(result), flush=True)
    except FAILURES as error:
        status = report_failure(error)
    except KeyboardInterrupt:
        status = report_failure("interrupted", INTERRUPTED)
    if results:
        paths = report.write(results, args.out, gpu_name() if args.profile is not Profile.CPU else "")
        print(f"\nwrote {', '.join(map(str, paths))}", flush=True)
    return status or (FAILED if any(result.failure for result in results) else DONE)


def listing(chosen: Sequence[Workload]) -> str:
    """Return a line for each workload, with its goals; a star marks those that are chosen."""
    names = [workload.name for workload in chosen]
    lines = []
    for workload in WORKLOADS.values():
        goals = "; ".join(f"{verdict.goal} {verdict.limit:g}" for verdict in WorkloadResult(workload).verdicts())
        mark = "*" if workload.name in names else " "
        lines.append(f"{mark} {workload.name:<22}{workload.description:<52}{goals}".rstrip())
    return "\n".join((*lines, "(*: measured with these options)"))


def _chosen(args: argparse.Namespace) -> list[Workload]:
    precisions = _precisions(args)
    names = [name for name in (args.workloads or "").split(",") if name]
    if names:
        return workloads.by_name(names, precisions)
    return workloads.default_workloads(precisions, quick=args.quick)


def _precisions(args: argparse.Namespace) -> tuple[Precision, ...]:
    if args.precision:
        return (Precision(args.precision),)
    return (Precision.FP32, Precision.INT8) if args.profile is Profile.CPU else (Precision.FP16,)


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--field {text}: not of the form NAME=VALUE")
    return name, value
