"""`python -m bench load`: many forms at once against the same number of forms one after another."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from demo.models import export_models
from demo.stack import Ports, running

from ..cli import DONE, add_json_output, positive_int, positive_ints
from ..comparison.workloads import SIZES, Kind
from ..errors import UsageError
from ..paths import WORK
from ..weights import timing_weights
from . import report
from .forms import FormMaker, Size
from .measure import Block, Result, blocks

VARIANT = ("--profile", "cpu", "--format", "openvino", "--precision", "int8", "--no-timing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `load`."""
    parser.description = (
        "Start Triton and the gateway, and post forms that the service has not seen: one after another, and all at "
        "once. Print both times, the waits, the processor time and the peak memory (PSS) of all processes. Compare "
        "ratios, not seconds: both sides are measured in turn, in one run."
    )
    parser.add_argument(
        "--forms", type=positive_ints, default=(8, 32), metavar="N,…", help="numbers of forms (default: 8,32)"
    )
    parser.add_argument("--rounds", type=positive_int, default=2, metavar="N", help="rounds (default: 2)")
    parser.add_argument(
        "--kind", type=Kind, choices=list(Kind), default=Kind.STILL, help="of the face (default: still)"
    )
    parser.add_argument(
        "--height", type=int, choices=sorted(SIZES), default=480, help="of the face in pixels (default: 480)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of speech in every form (default: 4)")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="exported models (default: int8 stand-ins, exported if missing)"
    )
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="models, media and logs (default: build/bench)"
    )
    add_json_output(parser, "load.json")


def run(args: argparse.Namespace) -> int:
    """Measure; print and write the result. Ctrl-C keeps what was measured before."""
    if not 0.5 <= args.seconds <= 600:
        raise UsageError(f"--seconds: {args.seconds:g}: from 0.5 to 600 are possible")
    size = Size(args.kind, args.height, args.seconds)
    repository = args.repository or args.work / "repository-int8"
    if args.repository is None:
        export_models(timing_weights(args.work / "weights"), repository, VARIANT)
    found: list[Block] = []
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            _measure(args, size, repository, Path(name), found)
    finally:
        if found:
            result = Result(found)
            print(report.text(result, size))
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(report.as_json(result, size, str(repository)), "utf-8")
            print(f"written: {os.path.relpath(args.out)}")
    return DONE


def _measure(args: argparse.Namespace, size: Size, repository: Path, folder: Path, found: list[Block]) -> None:
    maker = FormMaker(size, args.work / "media", folder)
    # an empty cache, and a queue in which every form has a place, although all are of one client
    settings = {
        "AVATAR_CACHE_DIR": str(folder / "cache"),
        "AVATAR_MAX_JOBS_PER_CLIENT": "0",
        "AVATAR_MAX_QUEUED": str(max(args.forms)),
    }
    with running(repository, args.work / "logs" / "load", Ports.free(), settings=settings) as stack:
        pids = {"Triton": stack.processes["embedded"].pid, "gateway": stack.processes["gateway"].pid}
        for block in blocks(stack.url, pids, maker, args.forms, args.rounds):
            found.append(block)
            print(report.line(block), flush=True)
