"""When a running server counts as lost, and when not: the criterion of ADR 23, first alone, then on a live server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded import model_watch, watchdog
from embedded.canary import Outcome
from embedded.errors import ModelDied, ModelHung
from embedded.model_watch import ModelProbe, ProcessWatch
from embedded.server import Triton
from embedded.stubs import Process, Stub, find_stubs, has_runnable_thread
from tests.support import tiny_models

SERVER = 100
STUB = Stub(101, "wav2lip")
LIMIT = 60.0  # seconds after which a live test gives up


class Machine:
    """A server and its stub, whose states a test sets, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.states: dict[int, str | None] = {SERVER: "S", STUB.pid: "S"}
        self.cpu_seconds = 0.0
        self.runnable = False
        self.finished: int | None = 0
        self.stubs = [STUB]

    def processes(self, *, reloads: bool = False) -> ProcessWatch:
        return ProcessWatch(
            SERVER,
            reloads=reloads,
            read=self._read,
            find=self._find,
            runnable=lambda pid: self.runnable,
            clock=lambda: self.now,
        )

    def _read(self, pid: int) -> Process | None:
        state = self.states[pid]
        return None if state is None else Process("triton_python_b", state, SERVER, self.cpu_seconds)

    def _find(self, server: int) -> list[Stub]:
        return [*self.stubs]


class SlowCall:
    """A tiny call that is answered when a test says so."""

    def __init__(self) -> None:
        self.asked, self.answered = threading.Event(), threading.Event()

    def __call__(self, model: str, timeout: float) -> Outcome:
        self.asked.set()
        assert self.answered.wait(LIMIT)
        return Outcome.ANSWERED


@contextmanager
def _waiting(machine: Machine) -> Iterator[ModelProbe]:
    """Yield a probe whose call is not answered."""
    call = SlowCall()
    probe = ModelProbe("wav2lip", call, lambda model: machine.finished, machine.processes(), lambda: machine.now)
    thread = threading.Thread(target=probe.call)
    thread.start()
    try:
        assert call.asked.wait(LIMIT)
        yield probe
    finally:
        call.answered.set()
        thread.join(LIMIT)


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [("Z", ModelDied, "wav2lip died"), (None, ModelDied, "wav2lip died"), ("T", ModelHung, "wav2lip is stopped")],
    ids=["a zombie", "gone", "stopped"],
)
def test_a_stub_that_does_not_live_is_a_fault_after_a_moment(
    state: str | None, error: type[Exception], text: str
) -> None:
    machine = Machine()
    watch = machine.processes()
    assert watch.look() is None
    machine.states[STUB.pid] = state
    assert watch.look() is None
    machine.now = model_watch.STOPPED_SECONDS
    fault = watch.look()
    assert isinstance(fault, error)
    assert text in str(fault)


def test_a_stub_that_was_stopped_for_a_moment_is_no_fault() -> None:
    machine = Machine()
    watch = machine.processes()
    for second in range(10):
        machine.now = second
        machine.states[STUB.pid] = "T" if second % 2 else "S"
        assert watch.look() is None


def test_a_server_that_reloads_models_may_end_a_stub_but_not_keep_a_dead_one() -> None:
    machine = Machine()
    watch = machine.processes(reloads=True)
    machine.states[STUB.pid] = None
    for machine.now in (0.0, 2.0):
        assert watch.look() is None
    machine.stubs, machine.states[102] = [Stub(102, "s3fd")], "Z"
    for machine.now in (10.0, 12.0):
        fault = watch.look()
    assert isinstance(fault, ModelDied)
    assert "s3fd" in str(fault)


def test_the_end_of_the_server_is_not_taken_for_the_death_of_a_model() -> None:
    machine = Machine()
    watch = machine.processes()
    machine.states = {SERVER: "Z", STUB.pid: None}
    for machine.now in (0.0, 60.0):
        assert watch.look() is None


def test_a_stopped_server_is_a_fault_only_after_seconds() -> None:
    machine = Machine()
    watch = machine.processes()
    machine.states[SERVER] = "T"
    for machine.now in (0.0, model_watch.SERVER_STOPPED_SECONDS - 0.1):
        assert watch.look() is None
    machine.now = model_watch.SERVER_STOPPED_SECONDS
    assert isinstance(watch.look(), ModelHung)


def test_a_model_that_neither_answers_nor_works_hangs() -> None:
    machine = Machine()
    with _waiting(machine) as probe:
        machine.now = model_watch.HUNG_SECONDS - 0.1
        assert probe.look() is None
        machine.now = model_watch.HUNG_SECONDS
        assert isinstance(probe.look(), ModelHung)


def test_a_model_that_works_on_a_long_batch_does_not_hang() -> None:
    machine = Machine()
    with _waiting(machine) as probe:
        for machine.now in range(int(model_watch.BUSY_SECONDS)):
            machine.cpu_seconds = machine.now / 10
            assert probe.look() is None


def test_a_model_that_gets_no_core_does_not_hang() -> None:
    machine = Machine()
    machine.runnable = True
    with _waiting(machine) as probe:
        for machine.now in range(int(model_watch.BUSY_SECONDS)):
            assert probe.look() is None
        machine.runnable = False
        machine.now += model_watch.HUNG_SECONDS
        assert isinstance(probe.look(), ModelHung)


def test_a_process_that_runs_has_a_runnable_thread_and_one_that_waits_has_none() -> None:
    code = "import sys\nprint(1, flush=True)\nif sys.argv[1] == 'run':\n    while True: pass\nsys.stdin.read()"
    for mode in ("run", "wait"):
        argv = [sys.executable, "-c", code, mode]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            end = time.monotonic() + LIMIT
            while has_runnable_thread(process.pid) != (mode == "run"):
                assert time.monotonic() < end
                time.sleep(0.01)
            process.kill()
    assert not has_runnable_thread(process.pid)


def test_a_model_with_a_long_queue_does_not_hang_as_long_as_it_finishes_requests() -> None:
    machine = Machine()
    with _waiting(machine) as probe:
        machine.finished = 1
        for machine.now in range(int(5 * model_watch.BUSY_SECONDS)):
            machine.cpu_seconds = machine.now
            assert probe.look() is None


def test_a_model_that_works_without_ever_finishing_a_request_hangs() -> None:
    machine = Machine()
    with _waiting(machine) as probe:
        for machine.now in range(int(model_watch.BUSY_SECONDS)):
            machine.cpu_seconds = machine.now
            assert probe.look() is None
        machine.now, machine.cpu_seconds = model_watch.BUSY_SECONDS, model_watch.BUSY_SECONDS
        fault = probe.look()
    assert isinstance(fault, ModelHung)
    assert "finished no request in 120 s" in str(fault)


def test_a_pause_of_the_watcher_itself_is_no_evidence() -> None:
    machine = Machine()
    with _waiting(machine) as probe:
        machine.now = 100.0
        probe.forget_suspicions()
        assert probe.look() is None


def test_no_call_is_made_to_a_model_that_finishes_requests_anyway() -> None:
    machine = Machine()
    called: list[str] = []

    def call(model: str, timeout: float) -> Outcome:
        called.append(model)
        return Outcome.ANSWERED

    probe = ModelProbe("wav2lip", call, lambda model: machine.finished, machine.processes())
    for finished in (0, 1, 5, 9, 9):  # the first call is the one that makes 1
        machine.finished = finished
        probe.call()
    assert len(called) == 3  # at 0, then at 1 where no other request came, then where 9 stays


def test_an_idle_model_is_called_rarely_until_requests_come_again() -> None:
    machine = Machine()
    called: list[str] = []

    def call(model: str, timeout: float) -> Outcome:
        called.append(model)
        machine.finished = (machine.finished or 0) + 1
        return Outcome.ANSWERED

    probe = ModelProbe("wav2lip", call, lambda model: machine.finished, machine.processes())
    for _ in range(model_watch.IDLE_ROUNDS):
        probe.call()
    assert len(called) == model_watch.IDLE_ROUNDS
    for _ in range(10 * model_watch.IDLE_CALL_ROUNDS):
        probe.call()
    assert len(called) == model_watch.IDLE_ROUNDS + 10
    machine.finished = (machine.finished or 0) + 5
    for _ in range(3):
        probe.call()
    assert len(called) == model_watch.IDLE_ROUNDS + 12


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        ([Outcome.DEAD], ModelDied),
        ([Outcome.ANSWERED, *[Outcome.FAILED] * 3], ModelHung),
        ([Outcome.ANSWERED, Outcome.FAILED, Outcome.FAILED, Outcome.ANSWERED, Outcome.FAILED], None),
        ([Outcome.FAILED] * 9, None),  # a model that such a call does not fit: it never answered one
        ([Outcome.ABSENT, Outcome.UNKNOWN, Outcome.UNKNOWN], None),
    ],
)
def test_answers_of_tiny_calls_show_a_dead_or_broken_model(
    outcomes: list[Outcome], error: type[Exception] | None
) -> None:
    given = iter(outcomes)
    probe = ModelProbe("wav2lip", lambda model, timeout: next(given), lambda model: None, Machine().processes())
    for _ in outcomes:
        assert probe.look() is None
        probe.call()
    assert (error is None and probe.look() is None) or (error and isinstance(probe.look(), error))


_ENDLESS = """
import time
class TritonPythonModel:
    def execute(self, requests):
        while True:
            {work}
"""


def _with_endless_model(folder: Path, work: str) -> Path:
    """A repository with a model `face_nms` that never answers."""
    tiny_models.add_arithmetic(folder)
    return tiny_models.add_face_nms(folder, _ENDLESS.format(work=work))


def test_a_live_model_that_hangs_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "CALL_EVERY_SECONDS", 0.5)
    monkeypatch.setattr(model_watch, "HUNG_SECONDS", 2.0)
    models = _with_endless_model(tmp_path / "models", "time.sleep(1)")
    with Triton(models, canaries=True) as triton:
        group = triton.pid
        with pytest.raises(ModelHung, match="face_nms hangs: no answer"):
            triton.wait(LIMIT)
        assert not watchdog.group_runs(group)


@pytest.mark.slow
def test_a_live_model_that_works_is_left_alone(tmp_path: Path) -> None:
    models = _with_endless_model(tmp_path / "models", "sum(range(10_000)); time.sleep(0.01)")
    with Triton(models, canaries=True) as triton:
        triton.wait(model_watch.CALL_EVERY_SECONDS + 2 * model_watch.HUNG_SECONDS)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGKILL, ModelDied), (signal.SIGSTOP, ModelHung)], ids=["killed", "stopped"]
)
def test_a_live_stub_that_is_killed_or_stopped_ends_the_server(
    tmp_path: Path, number: signal.Signals, error: type[Exception]
) -> None:
    tiny_models.add_arithmetic(tmp_path / "models")
    with Triton(tmp_path / "models") as triton:
        (stub,) = find_stubs(triton.pid)
        os.kill(stub.pid, number)
        with pytest.raises(error, match=rf"the process of the model arithmetic .*\(process {stub.pid}\)"):
            triton.wait(LIMIT)
