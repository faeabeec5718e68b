"""Batches in flight: how many, in which order they are finished, and what happens at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from lipsync.triton.slots import Slot, SlotPipeline

SECONDS = 20.0


class IdleSlot:
    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def launch(self, rows: int) -> None:
        pass

    def wait(self) -> None:
        pass


def _acquire_in_thread(pipeline: SlotPipeline[str]) -> tuple[threading.Thread, list[Slot]]:
    found: list[Slot] = []
    thread = threading.Thread(target=lambda: found.append(pipeline.acquire()), daemon=True)
    thread.start()
    return thread, found


def _pipeline(finish: Callable[[Slot, str], None], count: int = 2) -> tuple[SlotPipeline[str], list[Exception]]:
    errors: list[Exception] = []
    return SlotPipeline([IdleSlot(str(i)) for i in range(count)], finish, errors.append), errors


def test_batches_are_finished_in_the_order_of_their_submission() -> None:
    finished: list[str] = []
    pipeline, _ = _pipeline(lambda slot, job: finished.append(job))
    jobs = [f"batch {i}" for i in range(50)]
    for job in jobs:
        pipeline.submit(pipeline.acquire(), job)
    assert pipeline.close(SECONDS)
    assert finished == jobs


def test_a_caller_waits_while_all_slots_are_in_use() -> None:
    may_finish = threading.Semaphore(0)

    def finish(slot: Slot, job: str) -> None:
        may_finish.acquire()

    pipeline, _ = _pipeline(finish)
    for job in ("first", "second"):
        pipeline.submit(pipeline.acquire(), job)
    thread, found = _acquire_in_thread(pipeline)
    thread.join(0.1)
    assert not found
    may_finish.release()
    thread.join(SECONDS)
    assert len(found) == 1
    may_finish.release()
    assert pipeline.close(SECONDS)


def test_a_slot_is_free_again_after_an_error_and_the_error_is_reported() -> None:
    def finish(slot: Slot, job: str) -> None:
        if job == "bad":
            raise ValueError(job)
        good.append(job)

    good: list[str] = []
    pipeline, errors = _pipeline(finish, count=1)
    for job in ("bad", "good", "bad", "better"):
        pipeline.submit(pipeline.acquire(), job)
    assert pipeline.close(SECONDS)
    assert good == ["good", "better"]
    assert [str(error) for error in errors] == ["bad", "bad"]


def test_a_slot_that_was_not_submitted_can_be_given_back() -> None:
    pipeline, _ = _pipeline(lambda slot, job: None, count=1)
    slot = pipeline.acquire()
    pipeline.release(slot)
    assert pipeline.acquire() is slot
    assert pipeline.close(SECONDS)


@pytest.mark.parametrize("hangs", [False, True])
def test_the_end_waits_for_what_is_in_flight_but_not_for_ever(hangs: bool) -> None:
    may_finish, finished = threading.Event(), []

    def finish(slot: Slot, job: str) -> None:
        may_finish.wait()
        finished.append(job)

    pipeline, _ = _pipeline(finish)
    pipeline.submit(pipeline.acquire(), "batch")
    if hangs:
        assert not pipeline.close(0.1)
    else:
        threading.Timer(0.1, may_finish.set).start()
        assert pipeline.close(SECONDS)
        assert finished == ["batch"]
    may_finish.set()
