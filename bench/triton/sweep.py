"""`python -m bench perf`: perf_analyzer on every public model over gRPC, with and without shared memory."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from demo.stack import StackError, add_variant, how, prepare_from
from embedded.errors import EmbeddedError
from embedded.server import Triton
from lipsync.tensors import MODELS, Model

from ..weights import timing_weights
from . import overhead, request_data
from . import report as perf_report
from .perf_analyzer import PROGRAM, AnalyzerError, Load, Memory, is_local, measure, memories
from .report import Measured, Report

ROOT = Path(__file__).resolve().parents[2]
CALLERS = (1, 2, 4, 8)
REQUESTS = 10  # the fewest in one window
_BY_NAME = {model.name: model for model in MODELS}


def main(words: Sequence[str]) -> int:
    """Exit status: 0 done, 1 failed (or a part of it), 2 wrong usage, 130 ended by Ctrl-C."""
    options = _parser().parse_args(words)
    for number in (signal.SIGINT, signal.SIGTERM):  # both end it cleanly, also where a shell's `&` has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with server(options, max(options.concurrency)) as url:
            rows, failures = sweep(options, url)
            report = Report(rows, failures, served_as(url))
        if not (options.url or options.no_serving):
            repository = overhead.prepare(options.work)
            report = report.with_overhead(overhead.measure(repository, overhead.Plan()))
    except (AnalyzerError, StackError, EmbeddedError, InferenceServerException, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{perf_report.text(report)}")
    print(f"in {', '.join(str(path) for path in perf_report.write(report, options.out))}")
    return 1 if report.failures else 0


def sweep(options: argparse.Namespace, url: str) -> tuple[list[Measured], list[str]]:
    """Every load in turn; one that fails is told and does not end the others."""
    rows: list[Measured] = []
    failures: list[str] = []
    planned = loads(options, url)
    for number, load in enumerate(planned, 1):
        data = request_data.FOLDER / request_data.file_of(load.model)
        inputs = request_data.read(data, load.model)
        what = f"[{number}/{len(planned)}] {load.model.name}, {load.callers} at once, shared memory {load.memory}: "
        try:
            row = Measured(load, inputs.frames / inputs.steps, measure(load, url, inputs, data, options.perf_analyzer))
        except AnalyzerError as error:
            failures.append(f"{load.model.name}, {load.callers} at once, shared memory {load.memory}: {error}")
            print(f"{what}FAILED: {error}", flush=True)
            continue
        rows.append(row)
        print(f"{what}{row.frames_a_second:,.1f} frames/s, p95 {row.figures.p95_ms:,.1f} ms", flush=True)
    return rows, failures


def loads(options: argparse.Namespace, url: str) -> list[Load]:
    """What is measured, model by model; without shared memory alone where the server is on another machine.

    Raises:
        ValueError: nothing is: shared memory is asked for, of models that cannot be measured with it.
    """
    asked = options.memory or (("none", "system") if is_local(url) else ("none",))
    planned = [
        Load(model, callers, memory, min(options.batch, model.max_batch_size) or 1, options.requests)
        for model, memory, callers in product(options.models, asked, options.concurrency)
        if memory in memories(model)
    ]
    if not planned:
        raise ValueError("nothing to measure: perf_analyzer has no shared memory for models that stream")
    return planned


def served_as(url: str) -> dict[str, str]:
    """Backend and precision of each net, as the server's configs have them.

    Raises:
        InferenceServerException: no server answers.
    """
    client = InferenceServerClient(url, channel_args=[("grpc.enable_http_proxy", 0)] if is_local(url) else None)
    try:
        index = client.get_model_repository_index().models
        there = sorted({entry.name for entry in index if entry.state == "READY"})
        configs = {name: client.get_model_config(name).config for name in there}
    finally:
        client.close()
    return {
        name: f"{config.backend} {config.parameters['precision'].string_value}".strip()
        for name, config in configs.items()
        if config.backend not in ("", "python")
    }


@contextmanager
def server(options: argparse.Namespace, sessions: int) -> Iterator[str]:
    """Where the server answers: the one that was named, or one that runs as long as the block.

    Args:
        options: as `add_server` has them, and `work`.
        sessions: live ones at once that it has to carry; the one that was named has its own limit.

    Raises:
        InferenceServerException: the one that was named does not answer.
        StackError, EmbeddedError: models could not be exported, or the server does not start.
    """
    if options.url:
        served_as(options.url)  # an answer in a second, not a failure for each load
        yield options.url
        return
    repository = options.repository
    if repository is None:
        repository = options.work / "repository"
        prepare_from(timing_weights(options.work / "weights"), repository, how(options))
    env = {"AVATAR_LIVE_SESSIONS": str(2 * sessions)}  # who ends one and begins the next has two for a moment
    with Triton(repository, log=options.work / "logs" / "triton.log", say=print, env=env) as triton:
        yield triton.grpc_address


def add_server(parser: argparse.ArgumentParser) -> None:
    """The options of `server`."""
    where = parser.add_argument_group("the server (default: one is started on models that are exported for it)")
    where.add_argument("--url", type=_url, metavar="HOST:PORT", help="gRPC of one that runs already")
    where.add_argument("--repository", type=Path, metavar="DIR", help="start one on these models")
    add_variant(where)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench perf",
        description="perf_analyzer on every public model over gRPC, with and without shared memory; docs/perf.md",
        epilog="Exit status: 0 done, 1 failed (or a part of it), 2 wrong usage, 130 ended by Ctrl-C.",
    )
    add_server(parser)
    what = parser.add_argument_group("the load")
    what.add_argument("--models", nargs="+", type=_model, default=list(MODELS), metavar="NAME", help="default: all")
    what.add_argument("--concurrency", type=numbers, default=CALLERS, metavar="N,…", help="callers (default 1,2,4,8)")
    what.add_argument("--batch", type=_number, default=1, help="rows of a request to a net that batches (default 1)")
    what.add_argument(
        "--memory",
        type=_memories,
        metavar="WHICH,…",
        help="none, system or both, none,system (default: both where the server is on this machine)",
    )
    what.add_argument(
        "--requests",
        type=_number,
        default=REQUESTS,
        help=f"the fewest in each of three windows, which last a second or more (default {REQUESTS})",
    )
    parser.add_argument("--no-serving", action="store_true", help="leave out wav2lip against bare onnxruntime")
    parser.add_argument("--perf-analyzer", type=Path, default=PROGRAM, metavar="FILE", help="another one than .venv's")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="models and logs of the bench")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="where perf.md, perf.json and perf.png go")
    return parser


def _url(text: str) -> str:
    if not text.rpartition(":")[0] or not text.rpartition(":")[2].isdigit():
        raise argparse.ArgumentTypeError(f"{text}: HOST:PORT of gRPC expected, such as 127.0.0.1:8001")
    return text


def _model(text: str) -> Model:
    if text not in _BY_NAME:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(_BY_NAME)}")
    return _BY_NAME[text]


def _number(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: 1 or more expected")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """`1,2,4` of a command line."""
    return tuple(_number(each) for each in text.split(","))


def _memories(text: str) -> tuple[Memory, ...]:
    found: list[Memory] = []
    for each in text.split(","):
        if each not in ("none", "system"):
            raise argparse.ArgumentTypeError(f"{each} is neither none nor system")
        found.append("system" if each == "system" else "none")
    return tuple(found)
