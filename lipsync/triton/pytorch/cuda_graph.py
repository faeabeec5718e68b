"""Run a fixed sequence of CUDA calls on a stream: captured as one CUDA graph, or call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from .. import sticky

WARM_RUNS = 3  # cuDNN measures its kernels in the first run, TorchScript compiles in the second
Step: TypeAlias = Callable[[], None]
Pool: TypeAlias = Any  # of `torch.cuda.graph_pool_handle`


class StreamProgram:
    """Starts something on a stream, and waits for it.

    Args:
        start: does so when the stream is the current one.
        stream: its stream.
    """

    def __init__(self, start: Step, stream: torch.cuda.Stream) -> None:
        self._start, self._stream = start, stream
        # blocking: the waiting thread sleeps; the encoders of the jobs need the cores
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def launch(self) -> None:
        """Start, and return at once."""
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._start()
            self._done.record(self._stream)

    def wait(self) -> None:
        """Wait until the last launch is done. Raises an error of the GPU."""
        self._done.synchronize()


def eager(step: Step, stream: torch.cuda.Stream) -> StreamProgram:
    """Return a program that makes the calls of `step` each time, after warm runs."""
    _warm(step, stream)
    return StreamProgram(step, stream)


def captured(step: Step, stream: torch.cuda.Stream, pool: Pool, on_refusal: Callable[[str], None]) -> StreamProgram:
    """Return a program that replays the calls of `step`, captured once on `stream`.

    Args:
        step: calls CUDA only, with the same addresses each time.
        stream: for the warm runs, the capture and the replays.
        pool: memory of the graph. Graphs share one only if they never run at the same time.
        on_refusal: takes the reason if `step` cannot be captured; its calls are made one by one then.
    """
    _warm(step, stream)
    graph = torch.cuda.CUDAGraph()
    try:
        # thread_local: what other threads of the process do at this moment does not break the capture
        with (
            torch.inference_mode(),
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
    except RuntimeError as error:
        if sticky.is_sticky(error) and not _is_refusal(error):
            raise
        on_refusal(str(error).strip().split("\n")[0])
        return StreamProgram(step, stream)
    program = StreamProgram(graph.replay, stream)
    program.launch()  # the first replay uploads the graph
    program.wait()
    return program


def _is_refusal(error: RuntimeError) -> bool:
    """Return whether CUDA only refused to capture a call; the process can go on without the graph."""
    return "captur" in str(error)


def _warm(step: Step, stream: torch.cuda.Stream) -> None:
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):
            step()
    stream.synchronize()
