"""A running Triton, and checks for what its jobs leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from embedded.server import Triton
from tests.support.files import files_below

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A running server with its stub, its log, and the work folder of its jobs."""

    triton: Triton
    stub: GRPCInferenceServiceStub
    log: Path
    work: Path

    def leftovers(self) -> list[Path]:
        """Return the files in the work folder; wait for the clean-up."""
        return eventually_empty(lambda: files_below(self.work))

    def ffmpegs(self) -> list[int]:
        """Return the process ids of its ffmpegs; wait for their end."""
        return eventually_empty(self._ffmpegs)

    def _ffmpegs(self) -> list[int]:
        children = psutil.Process(self.triton.pid).children(recursive=True)
        pids = []
        for child in children:
            try:
                if "ffmpeg" in child.name():
                    pids.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return pids


def eventually_empty(list_items: Callable[[], list[T]], seconds: float = 30.0) -> list[T]:
    """List items until there are none or the time is over; return those that are left."""
    end = time.monotonic() + seconds
    while (items := list_items()) and time.monotonic() < end:
        time.sleep(0.05)
    return items
