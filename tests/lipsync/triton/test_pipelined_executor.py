"""Requests through slots: their rows, their errors, their order, and the end, with networks of the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, cast

import numpy as np
import pytest

from lipsync.triton.backend_config import BackendConfig
from lipsync.triton.pipelined_executor import PipelinedExecutor
from lipsync.triton.slots import Slot
from tests.support.fake_pb_utils import FINAL, FakePbUtils, Request, Tensors, backend_args

MOST = 8
INPUTS: Tensors = {"x": (np.float32, (2,)), "y": (np.float32, (2,))}
OUTPUTS: Tensors = {"sum": (np.float32, (2,)), "difference": (np.float32, (2,))}
CONFIG = BackendConfig(backend_args(INPUTS, OUTPUTS, batch=MOST))


class NumpySlot:
    """A slot whose network is NumPy. It raises for a row that contains NaN, and waits for `gate`."""

    def __init__(self, gate: threading.Semaphore | None = None) -> None:
        self.inputs = {name: np.full((MOST, 2), -1, np.float32) for name in INPUTS}
        self.outputs = {name: np.full((MOST, 2), -1, np.float32) for name in OUTPUTS}
        self.launched: list[int] = []
        self.fault: Callable[[int], None] = lambda rows: None  # of a launch
        self._gate = gate

    def launch(self, rows: int) -> None:
        self.fault(rows)
        self.launched.append(rows)

    def wait(self) -> None:
        if self._gate:
            self._gate.acquire()
        x, y = (self.inputs[name][: self.launched[-1]] for name in INPUTS)
        if np.isnan(x).any():
            raise RuntimeError("no number")
        self.outputs["sum"][: len(x)], self.outputs["difference"][: len(x)] = x + y, x - y


class Ended(BaseException):
    """The end of the process."""


def _end(model: str, error: BaseException) -> NoReturn:
    raise Ended(f"{model}: {error}")


class Bench:
    """An executor, its slots, and its module."""

    def __init__(self, slots: Sequence[NumpySlot] | None = None) -> None:
        self.pb = FakePbUtils()
        self.slots = list(slots or (NumpySlot(), NumpySlot()))
        self.order: list[str] = []
        self.executor = PipelinedExecutor(cast(Any, self.pb), CONFIG, cast(Sequence[Slot], self.slots), _end)

    def request(
        self,
        rows: int,
        start: float = 0,
        outputs: Sequence[str] = tuple(OUTPUTS),
        changes: Mapping[str, np.ndarray] | None = None,
    ) -> Request:
        x = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + np.float32(start)
        return Request({"x": x, "y": x * 3, **(changes or {})}, outputs, f"{start:g}", order=self.order)

    def execute(self, *requests: Request) -> None:
        self.executor.execute(cast(Any, requests))

    def launches(self) -> list[int]:
        return sorted(rows for slot in self.slots for rows in slot.launched)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _check(request: Request) -> None:
    outputs, x = request.answer().outputs, request.arrays["x"]
    assert request.flags == [FINAL]
    assert set(outputs) == set(request.outputs)
    expected = {"sum": x * 4, "difference": -x * 2}
    for name, array in outputs.items():
        np.testing.assert_array_equal(array, expected[name])


def test_requests_of_different_sizes_share_a_run_and_each_gets_its_own_rows(bench: Bench) -> None:
    requests = [bench.request(rows, 100 * rows) for rows in (1, 4, 2)]
    bench.execute(*requests)
    for request in requests:
        _check(request)
    assert bench.launches() == [7]


def test_a_batch_may_fill_the_slot_and_more_is_run_in_turns(bench: Bench) -> None:
    full = bench.request(MOST)
    bench.execute(full)
    _check(full)
    requests = [bench.request(5, 100 * i) for i in range(3)]
    bench.execute(*requests)
    for request in requests:
        _check(request)
    assert bench.launches() == [5, 5, 5, MOST]


def test_each_request_gets_only_the_outputs_that_it_asks_for(bench: Bench) -> None:
    requests = [bench.request(1, 1, ["sum"]), bench.request(1, 2, ["difference"]), bench.request(1, 3, [])]
    bench.execute(*requests)
    for request in requests:
        _check(request)


def test_responses_are_sent_in_the_order_of_the_requests(bench: Bench) -> None:
    requests = [bench.request(1 + i % 3, i) for i in range(40)]
    for i in range(0, 40, 2):
        bench.execute(*requests[i : i + 2])
    bench.executor.close()
    assert bench.order == [request.name for request in requests]


def test_the_memory_of_a_request_may_change_after_execute() -> None:
    gate = threading.Semaphore(0)
    bench = Bench([NumpySlot(gate), NumpySlot(gate)])
    request, kept = bench.request(2, 5), bench.request(2, 5)
    bench.execute(request)
    request.arrays["x"][:] = np.nan
    gate.release()
    np.testing.assert_array_equal(request.answer().outputs["sum"], kept.arrays["x"] * 4)


def test_a_row_on_which_the_network_fails_affects_only_its_request(bench: Bench) -> None:
    requests = [bench.request(2, 10 * i) for i in range(4)]
    requests[1].arrays["x"][1] = np.nan
    bench.execute(*requests)
    for request in (requests[0], requests[2], requests[3]):
        _check(request)
    error = requests[1].answer().error
    assert error
    assert (error.message, error.code) == ("internal error in net", "INTERNAL")
    assert "warn: net: a batch of 4 requests failed, running each alone: no number" in bench.pb.log
    assert sum("RuntimeError: no number" in line for line in bench.pb.log) == 1


def test_a_failed_batch_does_not_poison_the_next(bench: Bench) -> None:
    for i in range(6):
        bad, good = bench.request(3, i), bench.request(3, 50 + i)
        bad.arrays["x"][:] = np.nan
        bench.execute(bad)
        bench.execute(good)
        assert bad.answer().error
        _check(good)


def test_a_launch_that_fails_is_answered_like_a_run_that_fails(bench: Bench) -> None:
    def refuse(rows: int) -> None:
        raise RuntimeError("no launch")

    for slot in bench.slots:
        slot.fault = refuse
    request = bench.request(1)
    bench.execute(request)
    assert request.answer().error
    for slot in bench.slots:
        slot.fault = lambda rows: None
    for i in range(3):
        again = bench.request(1, i)
        bench.execute(again)
        _check(again)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"y": np.zeros((1, 2), np.float32)}, "net: y: float32 [2, 2] expected, got float32 [1, 2]"),
        ({"y": np.zeros((2, 3), np.float32)}, "net: y: float32 [2, 2] expected, got float32 [2, 3]"),
        ({"x": np.zeros((2, 2), np.float64)}, "net: x: float32 [2, 2] expected, got float64 [2, 2]"),
        (
            {"x": np.zeros((9, 2), np.float32), "y": np.zeros((9, 2), np.float32)},
            "net: 1 to 8 rows expected, got 9",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_and_the_others_are_answered(
    bench: Bench, changes: dict[str, np.ndarray], reason: str
) -> None:
    wrong, right = bench.request(2, changes=changes), bench.request(2, 7)
    bench.execute(wrong, right)
    error = wrong.answer().error
    assert error
    assert (error.message, error.code) == (reason, "INVALID_ARG")
    _check(right)


def test_a_missing_input_is_refused_and_no_slot_is_lost(bench: Bench) -> None:
    for _ in range(4):
        wrong = Request({"x": np.zeros((1, 2), np.float32)}, ["sum"])
        bench.execute(wrong)
        error = wrong.answer().error
        assert error
        assert error.message == "net: y: missing"
    right = bench.request(1)
    bench.execute(right)
    _check(right)


def test_a_response_that_cannot_be_sent_does_not_keep_the_others_from_theirs(bench: Bench) -> None:
    gone, there = bench.request(1, 1), bench.request(1, 2)
    gone.broken = True
    for _ in range(3):
        bench.execute(gone)
    bench.execute(gone, there)
    _check(there)
    assert any("sender has been closed" in line for line in bench.pb.log)


def test_execute_copies_the_next_batch_while_one_runs_and_waits_for_a_third() -> None:
    gate = threading.Semaphore(0)
    bench = Bench([NumpySlot(gate), NumpySlot(gate)])
    first, second, third = (bench.request(1, i) for i in range(3))
    bench.execute(first)
    bench.execute(second)
    thread = threading.Thread(target=bench.execute, args=(third,), daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    for _ in range(3):
        gate.release()
    thread.join(20)
    for request in (first, second, third):
        _check(request)


def test_when_the_model_is_unloaded_what_is_in_flight_is_answered_first() -> None:
    gate = threading.Semaphore(0)
    bench = Bench([NumpySlot(gate), NumpySlot(gate)])
    requests = [bench.request(1, i) for i in range(2)]
    for request in requests:
        bench.execute(request)
    threading.Timer(0.1, gate.release, (2,)).start()
    bench.executor.close()
    assert all(request.answers for request in requests)
    assert bench.pb.log == []


def test_many_callers_get_their_own_rows() -> None:
    bench = Bench()
    noise = np.random.default_rng(1)
    requests = [bench.request(int(noise.integers(1, MOST + 1)), i) for i in range(64)]
    for request in requests:
        bench.execute(request)
    for request in requests:
        _check(request)


def test_after_an_error_that_costs_the_gpu_the_process_ends(bench: Bench) -> None:
    def lose(rows: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for slot in bench.slots:
        slot.fault = lose
    with pytest.raises(Ended, match="net: CUDA error: an illegal memory access"):
        bench.execute(bench.request(1))
