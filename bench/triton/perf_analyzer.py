"""Run perf_analyzer: its arguments, its process, its CSV report."""

from __future__ import annotations

import csv
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from avatar_client.access import Token
from lipsync.tensors import Model

from ..errors import BenchError
from .request_data import Inputs

Memory = Literal["none", "system"]

PROGRAM = Path(sys.executable).with_name("perf_analyzer")  # where `make setup` puts it
# windows at most; it ends with three in a row in which requests ended, and merges them into one measurement
TRIALS = 12
# Bytes that it allocates for each output in shared memory: more than sixteen images of 320×240.
LARGEST_OUTPUT = 8 << 20
LIMIT_SECONDS = 300.0  # limit for one measurement
_FORGET_SECONDS = 20.0  # limit for requests in flight when it is stopped
_ERROR_MARK = " had error: "  # as in "Thread [0] had error: message of the server"
_SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
# Its default is 1, so that two concurrent measurements would use the same sessions. Ids over 31 bits make it fail.
_FIRST_SEQUENCE = os.getpid() << 8
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}


class AnalyzerError(BenchError):
    """perf_analyzer did not measure; the message is that of perf_analyzer."""


@dataclass(frozen=True)
class Target:
    """A server: its gRPC address, and the token that it requires for shared memory."""

    url: str
    token: Token


@dataclass(frozen=True)
class Load:
    """One measurement to make.

    Attributes:
        model: the model.
        callers: concurrent requests.
        memory: how tensors are sent: in the request (`none`), or in POSIX shared memory (`system`).
        batch: batch size of a request to a batching network.
        requests: minimum in each of the three windows; a window lasts at least a second, and for a model with sequences
            it holds a whole sequence of every caller.
    """

    model: Model
    callers: int
    memory: Memory = "none"
    batch: int = 1
    requests: int = 10


@dataclass(frozen=True)
class PerfMetrics:
    """The report of perf_analyzer; times are means per request in milliseconds, unless the name says otherwise.

    For a streaming model, the time of a request ends with its last response (perf_analyzer also prints that of the
    first). The server's own times end when the model has accepted the request, long before its responses.

    Attributes:
        inferences_per_second: requests per second times their batch size.
        p50_ms, p90_ms, p95_ms, p99_ms: percentiles of the latency.
        network_ms: the rest: client, network, the server's gRPC; for an ensemble, also the queues of its steps.
        queue_ms: in the server's queue, which includes the wait for a batch to fill.
        compute_ms: in the model, with the copies of its inputs and outputs.
        responses_per_second: for a streaming model, responses per second of all requests; else None.
    """

    inferences_per_second: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    network_ms: float
    queue_ms: float
    compute_ms: float
    responses_per_second: float | None = None


def measure(load: Load, target: Target, inputs: Inputs, data: Path, program: Path = PROGRAM) -> PerfMetrics:
    """Make one measurement with a server and the requests in the file `data`.

    Raises:
        AnalyzerError: perf_analyzer could not be run, or did not measure.
    """
    with tempfile.TemporaryDirectory() as folder, _clean_shared_memory(load, target, inputs):
        report = Path(folder) / "report.csv"
        argv = arguments(program, load, target, data, report, inputs.steps)
        run(argv, environment(target.url, os.environ))
        try:
            return parse(report.read_text())
        except OSError:
            raise AnalyzerError(f"{program.name} ended without a report") from None


def supported_memory(model: Model) -> tuple[Memory, ...]:
    """Return how perf_analyzer can send the model's tensors.

    It rejects shared memory if a request omits an optional input, as all requests to streaming models do. Also, each
    response of a request would overwrite the one before.
    """
    return ("none",) if model.streams else ("none", "system")


def arguments(program: Path, load: Load, target: Target, data: Path, report: Path, steps: int = 1) -> list[str]:
    """Return the command line: gRPC, one number of callers, three windows.

    `steps`: requests per sequence, all those in the file; perf_analyzer sets the start and end flags itself.
    """
    shared = ["--shared-memory", load.memory]
    if load.memory != "none":
        shared += ["--output-shared-memory-size", str(LARGEST_OUTPUT)]
        shared += [word for name, value in target.token.metadata() for word in ("-H", f"{name}:{value}")]
    kind = ["--streaming"] if load.model.streams else []
    if load.model.sequences:
        kind += ["--sequence-id-range", str(_FIRST_SEQUENCE)]
    # With fewer requests than callers a window would hold a part of a batch; with fewer than steps, of a sequence.
    minimum = max(load.requests, 2 * load.callers, steps * load.callers if steps > 1 else 0)
    return [
        str(program),
        *("-m", load.model.name, "-u", target.url, "-i", "grpc", *kind),
        *("-b", str(load.batch), "--input-data", str(data), *shared),
        *("--concurrency-range", str(load.callers)),
        *("--measurement-mode", "count_windows", "--measurement-request-count", str(minimum)),
        # On a shared machine windows never agree within its default of 10 %, so accept any three windows. A window in
        # which no request ends, because the machine is busy, is followed by another one.
        *("--max-trials", str(TRIALS), "--stability-percentage", "999"),
        *("-f", str(report)),
    ]


def environment(url: str, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the process, without a proxy for a server on this machine."""
    return {**base, "no_grpc_proxy": _host(url)} if is_local(url) else dict(base)


def is_local(url: str) -> bool:
    """Return whether a `host:port` is on this machine, as shared memory requires."""
    return _host(url) in _LOCAL


def parse(report: str) -> PerfMetrics:
    """Parse the CSV that `-f` writes for one number of callers; its times are in microseconds.

    Raises:
        AnalyzerError: the text is not such a report.
    """
    rows = list(csv.DictReader(report.splitlines()))
    if len(rows) != 1:
        raise AnalyzerError(f"the report has {len(rows)} lines instead of one")

    def ms(*columns: str) -> float:
        return sum(float(rows[0][column]) for column in columns) / 1000

    try:
        return PerfMetrics(
            inferences_per_second=float(rows[0]["Inferences/Second"]),
            p50_ms=ms("p50 latency"),
            p90_ms=ms("p90 latency"),
            p95_ms=ms("p95 latency"),
            p99_ms=ms("p99 latency"),
            network_ms=ms("Client Send", "Network+Server Send/Recv", "Client Recv"),
            queue_ms=ms("Server Queue"),
            compute_ms=ms("Server Compute Input", "Server Compute Infer", "Server Compute Output"),
            responses_per_second=float(rows[0]["Response Throughput"]) if "Response Throughput" in rows[0] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnalyzerError(f"not a report of perf_analyzer: {error}") from error


def run(argv: Sequence[str], env: Mapping[str, str], limit: float = LIMIT_SECONDS) -> None:
    """Run perf_analyzer to its end; stop it on an interrupt, or after `limit` seconds.

    Raises:
        AnalyzerError: perf_analyzer could not be started, took too long, or failed.
    """
    try:
        child = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches only us; we stop it
        )
    except OSError as error:
        raise AnalyzerError(f"cannot run {argv[0]}: {error.strerror}; `make setup` installs it") from error
    try:
        stderr = child.communicate(timeout=limit)[1]
    except subprocess.TimeoutExpired:
        raise AnalyzerError(f"not finished after {limit:g} s") from None
    finally:
        _stop(child)
    if child.returncode:
        raise AnalyzerError(_reason(stderr) or f"exit status {child.returncode}")


def regions(inputs: Inputs) -> list[str]:
    """Return the names of the shared memory regions that perf_analyzer creates for these requests."""
    steps = range(len(inputs.requests))
    return [f"{tensor.name}_0_{step}" for tensor in inputs.model.inputs for step in steps] + [
        tensor.name for tensor in inputs.model.outputs
    ]


@contextmanager
def exclusive_shared_memory() -> Iterator[None]:
    """Lock this machine's shared memory against other measurements, because every run uses the same region names."""
    descriptor = os.open(_SHM, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _clean_shared_memory(load: Load, target: Target, inputs: Inputs) -> Iterator[None]:
    """Release the regions before the block (a killed run may have left some) and after it."""
    if load.memory == "none":
        yield
        return
    with exclusive_shared_memory():
        _release(target, regions(inputs))
        try:
            yield
        finally:
            _release(target, regions(inputs))


def _release(target: Target, names: Sequence[str]) -> None:
    """Unregister the regions at the server and unlink them; the server unregisters one only when it is not in use."""
    client = InferenceServerClient(target.url, channel_args=[("grpc.enable_http_proxy", 0)])
    headers = dict(target.token.metadata())
    deadline = time.monotonic() + _FORGET_SECONDS
    try:
        while known := set(names) & _registered(client, headers):
            for name in known:
                with suppress(InferenceServerException):  # it is still in use
                    client.unregister_system_shared_memory(name, headers=headers)
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    finally:
        client.close()
        for name in names:
            (_SHM / name).unlink(missing_ok=True)


def _registered(client: InferenceServerClient, headers: dict[str, str]) -> set[str]:
    with suppress(InferenceServerException):  # the server has stopped, and so has no regions
        return set(client.get_system_shared_memory_status(headers=headers, as_json=True).get("regions", {}))
    return set()


def _stop(child: subprocess.Popen[str]) -> None:
    """Kill it; on SIGTERM it would finish its window first. `_clean_shared_memory` removes what it leaves."""
    if child.poll() is None:
        child.kill()
        child.communicate()


def _reason(stderr: str) -> str:
    lines = [line.strip().removeprefix("error: ") for line in stderr.splitlines() if line.strip()]
    responses = [line.partition(_ERROR_MARK)[2] for line in lines if _ERROR_MARK in line]
    return next(iter((*responses, *lines)), "")


def _host(url: str) -> str:
    return url.rpartition(":")[0]
