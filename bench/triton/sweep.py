"""`python -m bench perf`: perf_analyzer on every public model over gRPC, with and without shared memory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from lipsync.tensors import MODELS, Model

from ..cli import DONE, FAILED, positive_int, positive_ints
from ..paths import OUT, REQUEST_DATA
from . import overhead, request_data
from . import report as perf_report
from .perf_analyzer import PROGRAM, AnalyzerError, Load, Memory, Target, is_local, measure, supported_memory
from .report import Measurement, Report
from .server import add_server, networks, server

CALLERS = (1, 2, 4, 8)
REQUESTS = 10  # minimum per measurement window
_BY_NAME = {model.name: model for model in MODELS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `perf`."""
    add_server(parser)
    load = parser.add_argument_group("load")
    load.add_argument("--models", nargs="+", type=_model, default=list(MODELS), metavar="NAME", help="default: all")
    load.add_argument(
        "--concurrency",
        type=positive_ints,
        default=CALLERS,
        metavar="N,…",
        help="numbers of concurrent requests (default: 1,2,4,8)",
    )
    load.add_argument("--batch", type=positive_int, default=1, help="batch size of a request to a network (default: 1)")
    load.add_argument(
        "--memory",
        type=_memories,
        metavar="KIND,…",
        help="how tensors are sent: none (in the request), system (POSIX shared memory), or none,system (default: both "
        "if the server is on this machine and its token is known)",
    )
    load.add_argument(
        "--requests",
        type=positive_int,
        default=REQUESTS,
        help=f"minimum number of requests in each of three windows of at least a second (default: {REQUESTS})",
    )
    parser.add_argument(
        "--no-overhead", action="store_true", help="do not compare wav2lip with the bare runtime afterwards"
    )
    parser.add_argument("--no-serving", action="store_true", dest="no_overhead", help=argparse.SUPPRESS)  # its old name
    parser.add_argument(
        "--perf-analyzer", type=Path, default=PROGRAM, metavar="FILE", help="the program (default: that in .venv)"
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="folder for perf.md, perf.json and perf.png (default: out)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure every load, print and write the report."""
    with server(args, max(args.concurrency)) as target:
        rows, failures = sweep(args, target)
        report = Report(rows, failures, networks(target.url))
    if not (args.url or args.no_overhead):
        repository = overhead.prepare(args.work)
        report = report.with_overhead(overhead.serve_and_measure(repository, overhead.OverheadPlan()))
    print(f"\n{perf_report.text(report)}")
    print(f"wrote {', '.join(str(path) for path in perf_report.write(report, args.out))}")
    return FAILED if report.failures else DONE


def sweep(args: argparse.Namespace, target: Target) -> tuple[list[Measurement], list[str]]:
    """Measure every load; return the measurements, and a line for each load that failed."""
    rows: list[Measurement] = []
    failures: list[str] = []
    planned = loads(args, target)
    for number, load in enumerate(planned, 1):
        data = REQUEST_DATA / request_data.file_name(load.model)
        inputs = request_data.read(data, load.model)
        name = f"{load.model.name}, {load.callers} concurrent, shared memory {load.memory}"
        progress = f"[{number}/{len(planned)}] {name}: "
        try:
            metrics = measure(load, target, inputs, data, args.perf_analyzer)
        except AnalyzerError as error:
            failures.append(f"{name}: {error}")
            print(f"{progress}FAILED: {error}", flush=True)
            continue
        row = Measurement(load, inputs.frames / inputs.steps, metrics)
        rows.append(row)
        print(f"{progress}{row.frames_per_second:,.1f} frames/s, p95 {metrics.p95_ms:,.1f} ms", flush=True)
    return rows, failures


def loads(args: argparse.Namespace, target: Target) -> list[Load]:
    """Return what to measure, model by model.

    Unless it is chosen, shared memory is measured only if the server is on this machine and its token is known.

    Raises:
        ValueError: there is nothing to measure, because the chosen models do not support shared memory.
    """
    can_share = is_local(target.url) and bool(target.token.metadata())
    kinds: Sequence[Memory] = args.memory or (("none", "system") if can_share else ("none",))
    planned = [
        Load(model, callers, memory, min(args.batch, model.max_batch_size) or 1, args.requests)
        for model, memory, callers in product(args.models, kinds, args.concurrency)
        if memory in supported_memory(model)
    ]
    if not planned:
        raise ValueError("nothing to measure: perf_analyzer does not support shared memory for streaming models")
    return planned


def _model(text: str) -> Model:
    if text not in _BY_NAME:
        raise argparse.ArgumentTypeError(f"{text}: unknown model; choose from {', '.join(_BY_NAME)}")
    return _BY_NAME[text]


def _memories(text: str) -> tuple[Memory, ...]:
    kinds: list[Memory] = []
    for each in text.split(","):
        if each not in ("none", "system"):
            raise argparse.ArgumentTypeError(f"{each}: neither none nor system")
        kinds.append("system" if each == "system" else "none")
    return tuple(kinds)
