"""A Triton whose jobs' leftovers a test can see."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from embedded.server import Triton

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A running server, its stub, its log, and the folder that its jobs work in."""

    triton: Triton
    stub: GRPCInferenceServiceStub
    log: Path
    work: Path

    def leftovers(self) -> list[Path]:
        """Files of requests that are over, after a moment for the clean-up."""
        return eventually_empty(lambda: [path for path in self.work.rglob("*") if path.is_file()])

    def ffmpegs(self) -> list[int]:
        """Process ids of its ffmpegs, after a moment for their end."""
        return eventually_empty(self._ffmpegs)

    def _ffmpegs(self) -> list[int]:
        children = psutil.Process(self.triton.pid).children(recursive=True)
        found = []
        for child in children:
            try:
                if "ffmpeg" in child.name():
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found


def eventually_empty(look: Callable[[], list[T]], seconds: float = 5.0) -> list[T]:
    end = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found
