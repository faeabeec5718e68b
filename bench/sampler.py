"""Take samples in a thread while a block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Sampler(ABC):
    """`with Sampler(…): …` calls `sample` at the start of the block, every `interval` seconds, and never after it.

    Args:
        interval: seconds between the end of a sample and the start of the next one.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    @abstractmethod
    def sample(self) -> None:
        """Take one sample."""

    def _run(self) -> None:
        while True:
            self.sample()
            if self._stopped.wait(self._interval):
                return
