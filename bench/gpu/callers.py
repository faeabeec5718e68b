"""Many concurrent requests to `wav2lip`: frames per second, and the times of the requests.

The callers run in several processes, since one Python process cannot feed a GPU by gRPC: each request is copied twice
under the interpreter's lock.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from lipsync import tensors
from lipsync.arrays import Batch
from lipsync.tensors import WAV2LIP
from lipsync.triton.cpu import usable_cores

from ..errors import BenchError
from .transport import Memory, Server, prepared

CORES_PER_PROCESS = 4  # a quarter of the cores for callers, the rest for the server
READY_SECONDS = 120.0  # limit for the callers' set-up, which includes a first request
END_SECONDS = 150.0  # limit for the last responses
START_DELAY = 0.2  # seconds between the last caller's set-up and the first request


@dataclass(frozen=True)
class Load:
    """Concurrent requests: `callers` of `batch` frames each, for `seconds` after `warm_up` seconds."""

    callers: int
    batch: int
    memory: Memory
    seconds: float
    warm_up: float

    def __str__(self) -> str:
        return f"{self.callers} callers of {self.batch}, shared memory {self.memory}"


@dataclass(frozen=True)
class LoadResult:
    """Frames per second of all callers, and percentiles of the times of requests in milliseconds."""

    frames_per_second: float
    requests: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class _Done:
    """A request: when it was sent and answered, on the clock that all processes of the machine share."""

    begin: float
    end: float


def measure(server: Server, load: Load) -> LoadResult:
    """Call `wav2lip` with this load.

    Raises:
        BenchError: a caller failed.
    """
    context = multiprocessing.get_context("spawn")
    count = min(load.callers, max(1, usable_cores() // CORES_PER_PROCESS))
    shares = [load.callers // count + (number < load.callers % count) for number in range(count)]
    ends, processes = [], []
    try:
        for number, share in enumerate(shares):
            here, there = context.Pipe()
            process = context.Process(target=_process, args=(there, server, load, share, number), daemon=True)
            process.start()
            there.close()
            ends.append(here)
            processes.append(process)
        for end in ends:
            _receive(end, READY_SECONDS)
        start = time.monotonic() + START_DELAY + load.warm_up
        for end in ends:
            end.send(start)
        done = [each for end in ends for each in _receive(end, load.warm_up + load.seconds + END_SECONDS)]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return _result(done, load, start)


def _result(done: Sequence[_Done], load: Load, start: float) -> LoadResult:
    """Return the result of the requests that were sent after the warm-up."""
    counted = [each for each in done if each.begin >= start]
    seconds = max(each.end for each in counted) - start
    times = [1000 * (each.end - each.begin) for each in counted]
    p50, p95, p99 = np.percentile(times, (50, 95, 99)).tolist()
    return LoadResult(len(counted) * load.batch / seconds, len(counted), p50, p95, p99)


def _receive(end: Connection, seconds: float) -> list[_Done]:
    try:
        message = end.recv() if end.poll(seconds) else f"no answer of a caller for {seconds:g} s"
    except EOFError:
        message = "a caller's process has ended"
    if isinstance(message, str):
        raise BenchError(message)
    found: list[_Done] = message
    return found


def _process(end: Connection, server: Server, load: Load, callers: int, seed: int) -> None:
    """Run some callers: report that they are ready, wait for the start time, report what they did."""
    done: list[_Done] = []
    failures: list[str] = []
    ready, go = threading.Barrier(callers + 1), threading.Event()
    start: list[float] = []

    def call(number: int) -> None:
        try:
            with prepared(load.memory, server, WAV2LIP, noise(load.batch, seed * 1000 + number)) as request:
                request.send()
                ready.wait()
                go.wait()
                counted = False  # at least one request of each caller counts, however slow the device is
                while not failures and ((begin := time.monotonic()) < start[0] + load.seconds or not counted):
                    request.send()
                    done.append(_Done(begin, time.monotonic()))
                    counted = counted or begin >= start[0]
        except threading.BrokenBarrierError:
            pass
        except Exception as error:
            failures.append(f"{load}: {error}")
            ready.abort()

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait()
    if not failures:
        end.send([])
        start.append(end.recv())
    go.set()
    for thread in threads:
        thread.join()
    end.send(failures[0] if failures else done)


def noise(batch: int, seed: int) -> Batch:
    """Return random inputs of `wav2lip`."""
    source = np.random.default_rng(seed)
    faces = source.integers(0, 256, (batch, tensors.FACE_SIZE, tensors.FACE_SIZE, 3), np.uint8)
    mel = source.uniform(-4, 4, (batch, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS)).astype(np.float32)
    return faces, mel
