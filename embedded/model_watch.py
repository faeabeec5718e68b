"""Notice that a running server has lost a model: its process died, is stopped, or does not answer.

The criterion and its limits are explained in docs/adr/0023-when-a-model-is-lost.md. Only the standard library is
imported: Triton's container runs this file too, through `embedded.guard`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from .canary import TINY_CALLS, Call, Outcome
from .errors import ModelDied, ModelHung, ServerEnded
from .stubs import DEAD, STOPPED, Process, Stub, find_stubs, has_runnable_thread, read_process

POLLING = "--model-control-mode=poll"  # flag of a server that unloads models and loads others by itself
POLL_SECONDS = 0.25
RESCAN_SECONDS = 5.0  # between looks for new stubs
DEAD_SECONDS = 0.4  # an unloaded model's stub is a zombie too, until the server reaps it
STOPPED_SECONDS = 1.0  # after 1.5 s Triton itself crashes at the next call (triton server, issue 8882)
SERVER_STOPPED_SECONDS = 8.0

CALL_EVERY_SECONDS = 5.0  # if the model finished no other request in the meantime
IDLE_ROUNDS = 12  # of these pauses without other requests, after which the model counts as idle
IDLE_CALL_ROUNDS = 6  # an idle model is called in every sixth of them only: a network takes a tenth of a second
HUNG_SECONDS = 8.0  # without an answer and without CPU time
IDLE_CPU_SECONDS = 0.05  # CPU time in HUNG_SECONDS that does not count as work: threads of the runtime wake up
BUSY_SECONDS = 120.0  # without an answer or any other finished request, with CPU time; the time limit of a call
FAILURES = 3  # failed tiny calls in a row, by a model that has answered one before

Clock = Callable[[], float]
ReadProcess = Callable[[int], Process | None]
Finished = Callable[[str], int | None]  # requests that a model has finished, None if that is not known


class ProcessWatch:
    """Watches the states of the server's stubs, and of the server itself."""

    def __init__(
        self,
        server: int,
        *,
        reloads: bool = False,
        read: ReadProcess = read_process,
        find: Callable[[int], list[Stub]] = find_stubs,
        runnable: Callable[[int], bool] = has_runnable_thread,
        clock: Clock = time.monotonic,
    ) -> None:
        """Watch the server with this process id; with `reloads` it may replace stubs by itself."""
        self._server, self._reloads, self._clock = server, reloads, clock
        self._read, self._find, self._runnable = read, find, runnable
        self._stubs = find(server)
        self._scanned = clock()
        self._suspected: dict[int, float] = {}  # process ids, and since when

    def look(self) -> ServerEnded | None:
        """Return what is wrong, or None. The end of the server itself is not reported: its owner sees it."""
        server = self._read(self._server)
        if server is None or server.state in DEAD:
            return None
        if self._lasts(self._server, server.state in STOPPED, SERVER_STOPPED_SECONDS):
            return ModelHung(f"Triton is stopped (process {self._server}, state {server.state})")
        self._rescan()
        for stub in list(self._stubs):
            if fault := self._judge(stub):
                return fault
        return None

    def cpu_seconds(self, model: str) -> float | None:
        """Return the CPU time of a model's stubs, or None if it runs inside the server."""
        processes = [self._read(stub.pid) for stub in list(self._stubs) if stub.model == model]
        return sum(process.cpu_seconds for process in processes if process) if processes else None

    def could_work(self, model: str) -> bool:
        """Return whether a stub of the model has a thread that runs, or would if it got a core."""
        return any(self._runnable(stub.pid) for stub in list(self._stubs) if stub.model == model)

    def forget_suspicions(self) -> None:
        """Start to count again, after a time in which the watcher itself did not run."""
        self._suspected.clear()

    def _judge(self, stub: Stub) -> ServerEnded | None:
        process = self._read(stub.pid)
        gone = process is None or process.parent != self._server
        if gone and self._reloads:
            self._stubs.remove(stub)
            return None
        dead = gone or (process is not None and process.state in DEAD)
        stopped = not dead and process is not None and process.state in STOPPED
        if not self._lasts(stub.pid, dead or stopped, DEAD_SECONDS if dead else STOPPED_SECONDS):
            return None
        if dead:
            return ModelDied(f"the process of the model {stub.model} died (process {stub.pid})")
        return ModelHung(f"the process of the model {stub.model} is stopped (process {stub.pid})")

    def _lasts(self, pid: int, suspicious: bool, seconds: float) -> bool:
        """Return whether a process has been suspicious for this time."""
        if not suspicious:
            self._suspected.pop(pid, None)
            return False
        return self._clock() - self._suspected.setdefault(pid, self._clock()) >= seconds

    def _rescan(self) -> None:
        if self._clock() - self._scanned < RESCAN_SECONDS:
            return
        self._scanned = self._clock()
        known = {stub.pid for stub in self._stubs}
        self._stubs += [stub for stub in self._find(self._server) if stub.pid not in known]


class ModelProbe:
    """Tiny calls of one model, one at a time, and what they show."""

    def __init__(
        self, model: str, call: Call, finished: Finished, processes: ProcessWatch, clock: Clock = time.monotonic
    ) -> None:
        """Prepare the calls; `finished` and `processes` show whether the model works on something else."""
        self.model = model
        self._call, self._finished, self._processes, self._clock = call, finished, processes, clock
        self._before: int | None = None  # finished requests when the last call was made
        self._quiet = 0  # rounds without other requests
        self._sent: float | None = None  # when the call was made that is not answered yet
        self._cpu, self._worked = 0.0, 0.0  # CPU time, and when it was that much
        self._resumed = 0.0  # when this process ran again after a pause
        self._fault: ServerEnded | None = None
        self._failures, self._has_answered = 0, False

    def call(self) -> None:
        """Make one call and wait for its outcome, unless the model has finished other requests since the last one."""
        count = self._finished(self.model)
        if count is not None and self._before is not None and count > self._before:
            self._before, self._quiet = count, 0
            return
        self._quiet += 1
        if self._quiet > IDLE_ROUNDS and self._quiet % IDLE_CALL_ROUNDS:
            return
        self._before = count
        self._cpu = self._processes.cpu_seconds(self.model) or 0.0
        self._sent = self._clock()
        outcome = self._call(self.model, 2 * BUSY_SECONDS)
        self._sent = None
        if self._before is not None:
            self._before += 1  # this call
        self._judge(outcome)

    def look(self) -> ServerEnded | None:
        """Return what is wrong, or None."""
        sent = self._sent
        if self._fault or sent is None:
            return self._fault
        now, cpu = self._clock(), self._processes.cpu_seconds(self.model)
        # on an overloaded machine a model may get no core for seconds: it does not hang
        if cpu is not None and (cpu - self._cpu > IDLE_CPU_SECONDS or self._processes.could_work(self.model)):
            self._cpu, self._worked = cpu, now
        waited = now - max(sent, self._resumed)
        if cpu is not None and min(waited, now - self._worked) >= HUNG_SECONDS:
            return ModelHung(f"the model {self.model} hangs: no answer for {waited:.0f} s, and it does not work")
        if waited >= BUSY_SECONDS and self._before is not None and self._finished(self.model) == self._before:
            return ModelHung(f"the model {self.model} hangs: it finished no request in {waited:.0f} s")
        return None

    def forget_suspicions(self) -> None:
        """Start to count again, after a time in which the watcher itself did not run."""
        self._resumed = self._clock()

    def _judge(self, outcome: Outcome) -> None:
        self._failures = self._failures + 1 if outcome is Outcome.FAILED else 0
        self._has_answered |= outcome is Outcome.ANSWERED
        if outcome is Outcome.DEAD:
            self._fault = ModelDied(f"the process of the model {self.model} died: Triton says that it is not healthy")
        elif self._failures >= FAILURES and self._has_answered:
            self._fault = ModelHung(f"the model {self.model} failed {FAILURES} tiny calls in a row")


class ModelWatch:
    """Watches one running server until something is wrong, or until it is stopped.

    Args:
        server: process id of the server.
        models: models that it serves.
        call: makes a tiny call; without it only the states of processes are watched.
        finished: returns how many requests a model has finished.
        reloads: whether the server may unload models and load others.
    """

    def __init__(
        self,
        server: int,
        models: Iterable[str] = (),
        call: Call | None = None,
        finished: Finished = lambda model: None,
        *,
        reloads: bool = False,
    ) -> None:
        self._stopped = threading.Event()
        self._processes = ProcessWatch(server, reloads=reloads)
        called = [model for model in models if model in TINY_CALLS] if call else []
        self._probes = [ModelProbe(model, call, finished, self._processes) for model in called if call]

    def run(self) -> ServerEnded | None:
        """Watch, and return the first fault; None after `stop`."""
        for probe in self._probes:
            threading.Thread(target=self._keep_calling, args=(probe,), name=f"call {probe.model}", daemon=True).start()
        looked = time.monotonic()
        while not self._stopped.wait(POLL_SECONDS):
            now = time.monotonic()
            if now - looked > STOPPED_SECONDS:  # this process did not run, so what it sees now proves nothing yet
                self._forget_suspicions()
            looked = now
            if fault := self.look():
                return fault
        return None

    def look(self) -> ServerEnded | None:
        """Return what is wrong at this moment, or None."""
        return self._processes.look() or next(filter(None, (probe.look() for probe in self._probes)), None)

    def stop(self) -> None:
        """End `run`, from any thread. A tiny call in progress ends with its connection."""
        self._stopped.set()

    def _keep_calling(self, probe: ModelProbe) -> None:
        while not self._stopped.wait(CALL_EVERY_SECONDS):
            probe.call()

    def _forget_suspicions(self) -> None:
        self._processes.forget_suspicions()
        for probe in self._probes:
            probe.forget_suspicions()
