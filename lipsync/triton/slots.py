"""Slots: several batches in flight at once, and one thread that finishes them in the order of their start.

While the network works on the batch of one slot, the next batch is copied into the other one. Nothing of Triton and
nothing of a network's runtime is imported here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from ..arrays import Array

Job = TypeVar("Job")


class Slot(Protocol):
    """Buffers of one batch in the host's memory, and the network that runs on them."""

    @property
    def inputs(self) -> Mapping[str, Array]:
        """The buffers of the inputs by name, with as many rows as the largest batch."""
        ...

    @property
    def outputs(self) -> Mapping[str, Array]:
        """The buffers of the outputs by name, with as many rows as the largest batch."""
        ...

    def launch(self, rows: int) -> None:
        """Start the network on the first `rows` rows. On a GPU this returns at once."""
        ...

    def wait(self) -> None:
        """Wait until the outputs of the last launch are in their buffers. Raises the error of that launch."""
        ...


class SlotPipeline(Generic[Job]):
    """Hands out slots, and finishes what was submitted in its order, in a thread of its own.

    Args:
        slots: at least one; a slot is used by one batch at a time.
        finish: waits for a slot and uses its outputs. It must not raise; if it does, `on_error` gets the error.
        on_error: takes an error of `finish`, which is a defect.
    """

    def __init__(
        self, slots: Sequence[Slot], finish: Callable[[Slot, Job], None], on_error: Callable[[Exception], None]
    ) -> None:
        self._finish, self._on_error = finish, on_error
        self._free: SimpleQueue[Slot] = SimpleQueue()
        self._submitted: SimpleQueue[tuple[Slot, Job] | None] = SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        # a daemon: a network that never returns must not keep the process alive
        self._thread = threading.Thread(target=self._work, name="slots", daemon=True)
        self._thread.start()

    def acquire(self) -> Slot:
        """Return a free slot. Waits while all are in use, so callers cannot run ahead of the network."""
        return self._free.get()

    def release(self, slot: Slot) -> None:
        """Give back a slot that was acquired and is not submitted."""
        self._free.put(slot)

    def submit(self, slot: Slot, job: Job) -> None:
        """Have a slot finished after all that were submitted before it. Afterwards the slot is free again."""
        self._submitted.put((slot, job))

    def close(self, seconds: float) -> bool:
        """Finish what was submitted and end the thread. Return whether that was done within `seconds`."""
        self._submitted.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (submitted := self._submitted.get()) is not None:
            slot, job = submitted
            try:
                self._finish(slot, job)
            except Exception as error:
                self._on_error(error)
            finally:
                self._free.put(slot)
