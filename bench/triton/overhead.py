"""`python -m bench overhead`: wav2lip through gRPC against the same file in its bare runtime.

Both sides process the same batches with the same threads on the same machine, in turn. The difference is the cost of
serving.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from tritonclient.grpc import InferenceServerClient, InferInput

from demo.models import add_variant, export_models, variant_args
from embedded.server import Triton
from export.validation.runtimes import Run
from lipsync.arrays import Batch
from lipsync.tensors import WAV2LIP, WAV2LIP_BATCH
from lipsync.triton.cpu import usable_cores

from ..cli import DONE, positive_int
from ..paths import OUT, WORK
from ..weights import timing_weights
from . import request_data
from .bare_model import BareModel

GOAL = 0.95  # frames per second through gRPC, as a part of those in bare onnxruntime
ONNX = ("--format", "onnx", "--precision", "fp32")
_CALL_SECONDS = 300.0


@dataclass(frozen=True)
class OverheadPlan:
    """Parameters of the measurement.

    Attributes:
        callers: concurrent requests; two keep the network busy, more do no harm.
        batch: frames per request; the model's maximum, so that each request is one run on both sides.
        batches: requests per round, on each side.
        rounds: number of rounds; both sides are measured in each.
    """

    callers: int = 4
    batch: int = WAV2LIP_BATCH
    batches: int = 4
    rounds: int = 9


@dataclass(frozen=True)
class Overhead:
    """Result of the measurement; each sequence has one value per round.

    Attributes:
        plan: parameters of the measurement.
        runtime: format and precision of the file.
        threads: of the network, on both sides.
        served: frames per second through gRPC.
        bare: frames per second in this process, without a server.
        served_cpu, bare_cpu: CPU seconds per frame; of the server and the caller, and of this process.
    """

    plan: OverheadPlan
    runtime: str
    threads: int
    served: Sequence[float]
    bare: Sequence[float]
    served_cpu: Sequence[float]
    bare_cpu: Sequence[float]

    def as_json(self) -> dict[str, object]:
        """Return all values, and the ratios."""
        return asdict(self) | {"ratio": self.ratio, "cpu_ratio": self.cpu_ratio}

    @property
    def ratio(self) -> float:
        """Frames per second served ÷ bare: the median of the rounds, because other work slows both sides of a round."""
        return statistics.median(served / bare for served, bare in zip(self.served, self.bare, strict=True))

    @property
    def cpu_ratio(self) -> float:
        """CPU time bare ÷ served: what `ratio` would be on a machine without other work."""
        return statistics.median(bare / served for served, bare in zip(self.served_cpu, self.bare_cpu, strict=True))


class _Side:
    """Frames per second, and CPU seconds per frame, of one side in each round."""

    def __init__(self, frames: int, processes: Sequence[psutil.Process], seconds: Callable[[], float]) -> None:
        self._frames, self._processes, self._seconds = frames, processes, seconds
        self.speeds: list[float] = []
        self.cpu_seconds: list[float] = []

    def measure(self) -> None:
        """Process the frames of one round."""
        before = self._spent()
        self.speeds.append(self._frames / self._seconds())
        self.cpu_seconds.append((self._spent() - before) / self._frames)

    def _spent(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return float(sum(each.user + each.system for each in times))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `overhead`."""
    plan = OverheadPlan()
    for name, default, description in (
        ("callers", plan.callers, "concurrent requests"),
        ("batch", plan.batch, "frames per request"),
        ("batches", plan.batches, "requests per round, on each side"),
        ("rounds", plan.rounds, "rounds"),
    ):
        parser.add_argument(
            f"--{name}", type=positive_int, default=default, metavar="N", help=f"{description} (default: {default})"
        )
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="exported models (default: exported for this measurement)"
    )
    add_variant(parser.add_argument_group("exported models (default: onnx fp32)"))
    parser.add_argument("--work", type=Path, default=WORK, help="folder for models (default: build/bench)")
    parser.add_argument(
        "--out", type=Path, default=OUT / "overhead.json", help="JSON file of every round (default: out/overhead.json)"
    )


def run(args: argparse.Namespace) -> int:
    """Start Triton, measure, print and write the result; a missed goal is printed, and is no error."""
    repository = args.repository or prepare(args.work, variant_args(args) or ONNX)
    overhead = serve_and_measure(repository, OverheadPlan(args.callers, args.batch, args.batches, args.rounds))
    print(text(overhead))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(overhead.as_json(), indent=2) + "\n", "utf-8")
    return DONE


def prepare(work: Path, variant: Sequence[str] = ONNX) -> Path:
    """Export a repository of timing weights, unless it is up to date; return its folder.

    Raises:
        StackError: the export failed.
    """
    repository = work / "serving"
    export_models(timing_weights(work / "weights"), repository, (*variant, "--no-timing"))
    return repository


def serve_and_measure(repository: Path, plan: OverheadPlan) -> Overhead:
    """Start Triton on `repository`, and measure.

    Raises:
        EmbeddedError: Triton does not start.
        ExportError: the runtime cannot load the file.
        ValueError: there is no exported wav2lip, or a request failed.
    """
    threads = usable_cores()
    model = BareModel(repository, threads)  # before Triton starts, so that a wrong folder fails at once
    with Triton(repository, threads=threads, on_progress=print) as triton:
        return measure(model, triton, plan)


def measure(
    model: BareModel, triton: Triton, plan: OverheadPlan, on_progress: Callable[[str], None] = print
) -> Overhead:
    """Let both sides process the batches of the plan in turn; Triton must serve the same file.

    Raises:
        ValueError: a request failed.
    """
    batch = _batch(plan.batch)
    frames = plan.batches * plan.batch
    us, server = psutil.Process(), psutil.Process(triton.pid)
    processes = [us, server, *server.children(recursive=True)]  # the network runs in a child of the server
    address = triton.grpc_address
    served = _Side(frames, processes, lambda: _served_seconds(address, batch, plan.batches, plan.callers))
    bare = _Side(frames, [us], lambda: _bare_seconds(model.run, batch, plan.batches))
    model.run(batch)  # warm-up: allocates memory, starts threads
    _served_seconds(address, batch, plan.callers, plan.callers)
    sides = [served, bare]
    for number in range(1, plan.rounds + 1):
        for side in sides:
            side.measure()
        speeds = f"gRPC {served.speeds[-1]:,.1f} frames/s, bare {bare.speeds[-1]:,.1f} frames/s"
        on_progress(f"round {number} of {plan.rounds}: {speeds}")
        sides.reverse()  # so that a machine that slows down or speeds up favors neither side
    return Overhead(
        plan, model.variant, model.threads, served.speeds, bare.speeds, served.cpu_seconds, bare.cpu_seconds
    )


def text(overhead: Overhead) -> str:
    """Return the result in two lines."""
    plan, ratio = overhead.plan, overhead.ratio
    served, bare = statistics.median(overhead.served), statistics.median(overhead.bare)
    setup = f"{overhead.runtime}, {overhead.threads} threads, {plan.callers} concurrent requests of {plan.batch}"
    return (
        f"Serving overhead: wav2lip, {setup}, medians of {plan.rounds} rounds:\n"
        f"{served:,.1f} frames/s through gRPC, {bare:,.1f} frames/s in the bare runtime, "
        f"ratio {ratio:.3f} (goal: at least {GOAL}; {'met' if ratio >= GOAL else 'MISSED'}); "
        f"CPU time, which other work hardly affects: {overhead.cpu_ratio:.3f}"
    )


def _bare_seconds(run: Run, batch: Batch, batches: int) -> float:
    begin = time.perf_counter()
    for _ in range(batches):
        run(batch)
    return time.perf_counter() - begin


def _served_seconds(address: str, batch: Batch, batches: int, callers: int) -> float:
    """Return the seconds until `batches` requests are answered, `callers` of them at a time."""
    numbers = count()
    failures: list[Exception] = []
    inputs = []
    for tensor, array in zip(WAV2LIP.inputs, batch, strict=True):
        inputs.append(InferInput(tensor.name, list(array.shape), tensor.dtype))
        inputs[-1].set_data_from_numpy(array)
    client = InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)])

    def call() -> None:
        try:
            while next(numbers) < batches and not failures:
                client.infer(WAV2LIP.name, inputs, client_timeout=_CALL_SECONDS).as_numpy(WAV2LIP.outputs[0].name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    begin = time.perf_counter()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begin
    except BaseException as error:  # Ctrl-C: start no further request
        failures.append(ValueError(str(error)))
        raise
    finally:
        client.close()
    if failures:
        raise ValueError(f"a request failed: {failures[0]}") from failures[0]
    return took


def _batch(rows: int) -> Batch:
    (inputs,) = (each for each in request_data.make_inputs() if each.model is WAV2LIP)
    requests = [inputs.requests[row % len(inputs.requests)] for row in range(rows)]
    return tuple(np.ascontiguousarray(np.stack(arrays)) for arrays in zip(*requests, strict=True))
