"""`python -m bench serving`: wav2lip through gRPC against the same file in its bare runtime, in turn, in one run.

Both sides do the same batches with the same threads on the same machine; what is between them is the cost of serving.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

from demo.stack import StackError, add_variant, variant_args, export_models
from embedded.errors import EmbeddedError
from embedded.server import Triton
from export.build import versions
from export.errors import ExportError
from export.validation import runtimes
from export.validation.runtimes import Run
from export.variants import Format
from lipsync.tensors import WAV2LIP, WAV2LIP_BATCH
from lipsync.triton.cpu import usable_cores

from ..weights import timing_weights
from . import request_data

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.95  # frames a second through gRPC as a part of bare onnxruntime's
ONNX = ("--format", "onnx", "--precision", "fp32")
_CALL_SECONDS = 300.0

Batch = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Plan:
    """How it is measured.

    Attributes:
        callers: requests in flight; two keep the net busy, more do not hurt it.
        batch: rows of a request; as many as the model takes, so that each is a run of its own on both sides.
        batches: of one round, on each side.
        rounds: in each of them both sides have their turn.
    """

    callers: int = 4
    batch: int = WAV2LIP_BATCH
    batches: int = 4
    rounds: int = 9


@dataclass(frozen=True)
class Overhead:
    """What came out; frames a second, round by round.

    Attributes:
        plan: how it was measured.
        runtime: format and precision of the file.
        threads: of the net, on both sides.
        served: through gRPC.
        bare: in this process, without a server.
        served_work, bare_work: seconds of processor time that a frame took; the server's and the caller's.
    """

    plan: Plan
    runtime: str
    threads: int
    served: Sequence[float]
    bare: Sequence[float]
    served_work: Sequence[float]
    bare_work: Sequence[float]

    def as_json(self) -> dict[str, object]:
        """All of it, the ratios included."""
        return asdict(self) | {"ratio": self.ratio, "work_ratio": self.work_ratio}

    @property
    def ratio(self) -> float:
        """Served ÷ bare, the median of the rounds' own: other work on the machine slows both sides of a round."""
        return statistics.median(served / bare for served, bare in zip(self.served, self.bare, strict=True))

    @property
    def work_ratio(self) -> float:
        """Processor time of the bare runtime ÷ that of serving: what the ratio would be, were nothing else running."""
        return statistics.median(bare / served for served, bare in zip(self.served_work, self.bare_work, strict=True))


class _Side:
    """Frames a second of each turn, and the processor time that its processes spent on a frame."""

    def __init__(self, frames: int, processes: Sequence[psutil.Process], seconds: Callable[[], float]) -> None:
        self._frames, self._processes, self._seconds = frames, processes, seconds
        self.speeds: list[float] = []
        self.work: list[float] = []

    def measure(self) -> None:
        """Do the turn's frames."""
        before = self._spent()
        self.speeds.append(self._frames / self._seconds())
        self.work.append((self._spent() - before) / self._frames)

    def _spent(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return float(sum(each.user + each.system for each in times))


def main(words: Sequence[str]) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C. Missing the goal is printed, not an error."""
    options = _parser().parse_args(words)
    try:
        repository = options.repository or prepare(options.work, variant_args(options) or ONNX)
        plan = Plan(options.callers, options.batch, options.batches, options.rounds)
        overhead = measure(repository, plan)
    except (StackError, EmbeddedError, ExportError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(text(overhead))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(overhead.as_json(), indent=2) + "\n", "utf-8")
    return 0


def prepare(work: Path, variant: Sequence[str] = ONNX) -> Path:
    """A repository of timing weights as ONNX in fp32 (or another variant), exported where it is not there yet.

    Raises:
        StackError: the export failed.
    """
    repository = work / "serving"
    export_models(timing_weights(work / "weights"), repository, (*variant, "--no-timing"))
    return repository


def measure(repository: Path, plan: Plan, say: Callable[[str], None] = print) -> Overhead:
    """Start Triton on `repository` and let both sides do the plan's batches in turn.

    Raises:
        EmbeddedError: Triton does not start.
        ExportError: the runtime cannot load the file.
        ValueError: there is no exported wav2lip, or a request failed.
    """
    exported = versions.list_versions(repository / WAV2LIP.name)
    if not exported:
        raise ValueError(f"{repository}: no exported {WAV2LIP.name} in it")
    record = exported[-1].record
    threads = usable_cores()
    batch = _batch(plan.batch)
    run = bare(exported[-1].folder / Format(record["format"]).file, threads)
    frames = plan.batches * plan.batch
    with Triton(repository, threads=threads, say=say) as triton:
        server = psutil.Process(triton.pid)
        us = psutil.Process()
        processes = [us, server, *server.children(recursive=True)]  # the net runs in one of its children
        served = _Side(
            frames, processes, lambda: _served_seconds(triton.grpc_address, batch, plan.batches, plan.callers)
        )
        alone = _Side(frames, [us], lambda: _bare_seconds(run, batch, plan.batches))
        run(batch)  # memory taken, threads awake
        _served_seconds(triton.grpc_address, batch, plan.callers, plan.callers)
        sides = [served, alone]
        for turn in range(plan.rounds):
            for side in sides:
                side.measure()
            speeds = f"gRPC {served.speeds[-1]:,.1f} frames/s, bare {alone.speeds[-1]:,.1f} frames/s"
            say(f"round {turn + 1} of {plan.rounds}: {speeds}")
            sides.reverse()  # so that a machine that slows down or wakes up favours neither
    runtime = f"{record['format']} {record['precision']}"
    return Overhead(plan, runtime, threads, served.speeds, alone.speeds, served.work, alone.work)


def text(overhead: Overhead) -> str:
    """The outcome in two lines."""
    plan, ratio = overhead.plan, overhead.ratio
    served, alone = statistics.median(overhead.served), statistics.median(overhead.bare)
    how_it_was = f"{overhead.runtime}, {overhead.threads} threads, {plan.callers} requests of {plan.batch} in flight"
    return (
        f"Serving overhead: wav2lip, {how_it_was}, medians of {plan.rounds} rounds:\n"
        f"{served:,.1f} frames/s through gRPC, {alone:,.1f} frames/s in the bare runtime, "
        f"ratio {ratio:.3f} (goal: at least {GOAL}; {'met' if ratio >= GOAL else 'MISSED'}); "
        f"of processor time, which other work does not change much, {overhead.work_ratio:.3f}"
    )


def bare(path: Path, threads: int) -> Run:
    """The exported file in its runtime; an ONNX file in a session like the server's (a test holds them equal)."""
    if path.suffix != ".onnx":
        return runtimes.load(WAV2LIP, path)
    session = onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in WAV2LIP.outputs]

    def run(batch: Batch) -> list[NDArray[Any]]:
        feeds = {tensor.name: array for tensor, array in zip(WAV2LIP.inputs, batch, strict=True)}
        outputs: list[NDArray[Any]] = session.run(names, feeds)
        return outputs

    return run


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """As embedded/backends/onnxruntime/model.py has them; that file can be imported inside Triton only."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _bare_seconds(run: Run, batch: Batch, batches: int) -> float:
    begin = time.perf_counter()
    for _ in range(batches):
        run(batch)
    return time.perf_counter() - begin


def _served_seconds(address: str, batch: Batch, batches: int, callers: int) -> float:
    """Seconds until `batches` requests were answered, `callers` of them in flight at any time."""
    numbers = count()
    failures: list[Exception] = []
    inputs = []
    for tensor, array in zip(WAV2LIP.inputs, batch, strict=True):
        inputs.append(InferInput(tensor.name, list(array.shape), tensor.dtype))
        inputs[-1].set_data_from_numpy(array)
    client = InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)])

    def ask() -> None:
        try:
            while next(numbers) < batches and not failures:
                client.infer(WAV2LIP.name, inputs, client_timeout=_CALL_SECONDS).as_numpy(WAV2LIP.outputs[0].name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    begin = time.perf_counter()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
    except BaseException as error:  # Ctrl-C: no further request
        failures.append(ValueError(str(error)))
        raise
    finally:
        client.close()
    if failures:
        raise ValueError(f"a request failed: {failures[0]}") from failures[0]
    return took


def _batch(rows: int) -> Batch:
    (inputs,) = (each for each in request_data.make() if each.model is WAV2LIP)
    requests = [inputs.requests[row % len(inputs.requests)] for row in range(rows)]
    return tuple(np.ascontiguousarray(np.stack(arrays)) for arrays in zip(*requests, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench serving",
        description="wav2lip through gRPC against the same file in its bare runtime, in turn, in one run.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 ended by Ctrl-C.",
    )
    plan = Plan()
    for name, value in asdict(plan).items():
        about = {"batch": "rows of a request", "batches": "requests of a round, on each side"}.get(name, name)
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{about} (default {value})")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="exported models (default: made for it)")
    add_variant(parser.add_argument_group("what they are made as, if not ONNX in fp32"))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="models of the bench")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "serving.json", help="every round, as JSON")
    return parser
