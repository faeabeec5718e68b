"""perf_analyzer: its arguments, its process, its CSV."""

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

from lipsync.tensors import Model

from .request_data import Inputs

Memory = Literal["none", "system"]

PROGRAM = Path(sys.executable).with_name("perf_analyzer")  # where `make setup` puts it
WINDOWS = 3  # as many as it merges into one measurement, and the fewest that it takes
LARGEST_OUTPUT = (
    8 << 20
)  # bytes that it sets aside for each output in shared memory: sixteen pictures of 320×240 and more
LIMIT_SECONDS = 300.0  # of one measurement
_FORGET_SECONDS = 20.0  # for requests in flight when it is stopped
_ANSWERED = " had error: "  # in its words: Thread [0] had error: what the server answered
_SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
# Its own first is 1, and two that measure at once would speak in each other's sessions. More than 31 bits end it.
_FIRST_SEQUENCE = os.getpid() << 8
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}


class AnalyzerError(Exception):
    """perf_analyzer did not measure; the message is its own."""


@dataclass(frozen=True)
class Load:
    """One measurement that is asked for.

    Attributes:
        model: which model.
        callers: requests in flight at any time.
        memory: how tensors reach the server: in the request, or by POSIX shared memory.
        batch: rows of a request, of a net that batches.
        requests: the fewest in each of the three windows; a window lasts a second or more, and holds a whole sequence
            of every caller where the model has such.
    """

    model: Model
    callers: int
    memory: Memory = "none"
    batch: int = 1
    requests: int = 10


@dataclass(frozen=True)
class Figures:
    """What perf_analyzer said; times are averages of a request, in milliseconds, where the name does not say otherwise.

    Of a model that streams, a request's time ends with its last answer, whatever perf_analyzer prints of the first; and
    the server's own times end where the model has taken the request, long before it has answered.

    Attributes:
        inferences_a_second: requests a second times their batch.
        p50_ms, p90_ms, p95_ms, p99_ms: time that a caller waits, percentiles.
        network_ms: the rest: client, wire, the server's gRPC; of an ensemble, its steps' queues as well.
        queue_ms: waiting in the server, for a batch to fill among others.
        compute_ms: in the model, its inputs and outputs brought and taken included.
        answers_a_second: of a model that streams, answers of all requests; None of another.
    """

    inferences_a_second: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    network_ms: float
    queue_ms: float
    compute_ms: float
    answers_a_second: float | None = None


def measure(load: Load, url: str, inputs: Inputs, data: Path, program: Path = PROGRAM) -> Figures:
    """Run one measurement against the server at `url`, with the requests that `data` holds.

    Raises:
        AnalyzerError: it could not be run, or did not measure.
    """
    with tempfile.TemporaryDirectory() as folder, _shared(load, url, inputs):
        report = Path(folder) / "report.csv"
        run(arguments(program, load, url, data, report, inputs.steps), environment(url, os.environ))
        try:
            return parse(report.read_text())
        except OSError:
            raise AnalyzerError(f"{program.name} ended without a report") from None


def memories(model: Model) -> tuple[Memory, ...]:
    """How perf_analyzer can bring the model's tensors.

    It refuses shared memory where a request leaves out an input that may be left out, as all do to a model that
    streams; and each answer of a request would be written over the one before.
    """
    return ("none",) if model.streams else ("none", "system")


def arguments(program: Path, load: Load, url: str, data: Path, report: Path, steps: int = 1) -> list[str]:
    """The command line: gRPC, one number of callers, three windows and no more.

    `steps`: requests of a sequence. It takes as many as the file has, and sets their start and end by itself.
    """
    shared = ["--shared-memory", load.memory]
    if load.memory != "none":
        shared += ["--output-shared-memory-size", str(LARGEST_OUTPUT)]
    kind = ["--streaming"] if load.model.streams else []
    if load.model.sequences:
        kind += ["--sequence-id-range", str(_FIRST_SEQUENCE)]
    # fewer requests than callers would measure a part of a batch; than steps, of a sequence, whose parts differ
    fewest = max(load.requests, 2 * load.callers, steps * load.callers if steps > 1 else 0)
    return [
        str(program),
        *("-m", load.model.name, "-u", url, "-i", "grpc", *kind),
        *("-b", str(load.batch), "--input-data", str(data), *shared),
        *("--concurrency-range", str(load.callers)),
        *("--measurement-mode", "count_windows", "--measurement-request-count", str(fewest)),
        # on a shared machine windows never come within its 10 % of each other: it merges three, whatever they say
        *("--max-trials", str(WINDOWS), "--stability-percentage", "999"),
        *("-f", str(report)),
    ]


def environment(url: str, base: Mapping[str, str]) -> dict[str, str]:
    """The process's environment: a proxy set for downloads is not the way to a server on this machine."""
    return {**base, "no_grpc_proxy": _host(url)} if is_local(url) else dict(base)


def is_local(url: str) -> bool:
    """Whether a `host:port` is this machine, as shared memory asks for."""
    return _host(url) in _LOCAL


def parse(report: str) -> Figures:
    """The CSV that `-f` writes for one number of callers; its times are microseconds.

    Raises:
        AnalyzerError: it is something else.
    """
    rows = list(csv.DictReader(report.splitlines()))
    if len(rows) != 1:
        raise AnalyzerError(f"a report of one line expected, {len(rows)} found")

    def ms(*columns: str) -> float:
        return sum(float(rows[0][column]) for column in columns) / 1000

    try:
        return Figures(
            inferences_a_second=float(rows[0]["Inferences/Second"]),
            p50_ms=ms("p50 latency"),
            p90_ms=ms("p90 latency"),
            p95_ms=ms("p95 latency"),
            p99_ms=ms("p99 latency"),
            network_ms=ms("Client Send", "Network+Server Send/Recv", "Client Recv"),
            queue_ms=ms("Server Queue"),
            compute_ms=ms("Server Compute Input", "Server Compute Infer", "Server Compute Output"),
            answers_a_second=float(rows[0]["Response Throughput"]) if "Response Throughput" in rows[0] else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnalyzerError(f"a report that is none of perf_analyzer's: {error}") from error


def run(argv: Sequence[str], env: Mapping[str, str], limit: float = LIMIT_SECONDS) -> None:
    """Run it to its end; it is stopped when this is interrupted, or after `limit` seconds.

    Raises:
        AnalyzerError: it could not be started, took too long or failed.
    """
    try:
        child = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C reaches us, and we stop it
        )
    except OSError as error:
        raise AnalyzerError(f"{argv[0]} cannot be run: {error.strerror}; `make setup` brings it") from error
    try:
        said = child.communicate(timeout=limit)[1]
    except subprocess.TimeoutExpired:
        raise AnalyzerError(f"not done after {limit:g} s") from None
    finally:
        _stop(child)
    if child.returncode:
        raise AnalyzerError(_reason(said) or f"exit status {child.returncode}")


def regions(inputs: Inputs) -> list[str]:
    """Names of the shared memory that it makes for these requests, as its source builds them."""
    steps = range(len(inputs.requests))
    return [f"{tensor.name}_0_{step}" for tensor in inputs.model.inputs for step in steps] + [
        tensor.name for tensor in inputs.model.outputs
    ]


@contextmanager
def alone() -> Iterator[None]:
    """Hold this machine's shared memory against other measurements: its regions have the same names in every run."""
    descriptor = os.open(_SHM, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _shared(load: Load, url: str, inputs: Inputs) -> Iterator[None]:
    """What a killed run left goes first, and what this one leaves last."""
    if load.memory == "none":
        yield
        return
    with alone():
        _forget(url, regions(inputs))
        try:
            yield
        finally:
            _forget(url, regions(inputs))


def _forget(url: str, names: Sequence[str]) -> None:
    """Take the regions from the server and from this machine; the server lets go of one when its requests are done."""
    client = InferenceServerClient(url, channel_args=[("grpc.enable_http_proxy", 0)])
    deadline = time.monotonic() + _FORGET_SECONDS
    try:
        while known := set(names) & _known(client):
            for name in known:
                with suppress(InferenceServerException):  # in use
                    client.unregister_system_shared_memory(name)
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    finally:
        client.close()
        for name in names:
            (_SHM / name).unlink(missing_ok=True)


def _known(client: InferenceServerClient) -> set[str]:
    with suppress(InferenceServerException):  # the server is gone, and with it what it knew
        return set(client.get_system_shared_memory_status(as_json=True).get("regions", {}))
    return set()


def _stop(child: subprocess.Popen[str]) -> None:
    """At once: asked to stop, it would end its window first, and what it leaves is known."""
    if child.poll() is None:
        child.kill()
        child.communicate()


def _reason(said: str) -> str:
    lines = [line.strip().removeprefix("error: ") for line in said.splitlines() if line.strip()]
    answered = [line.partition(_ANSWERED)[2] for line in lines if _ANSWERED in line]
    return next(iter((*answered, *lines)), "")


def _host(url: str) -> str:
    return url.rpartition(":")[0]
