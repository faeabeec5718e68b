"""Kills and freezes processes of the service, and measures how long it takes until a form succeeds again."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import psutil

from tests.soak.forms import FormCase
from tests.soak.outcomes import Outcomes
from tests.soak.stack import SoakStack

MAX_RECOVERY = 60.0  # seconds; a service that takes longer has not healed itself
STUBS = ("mel_spectrogram", "face_crop", "face_nms", "face_paste", "s3fd", "wav2lip", "segmentation", "avatar", "live")


@dataclass(frozen=True)
class Fault:
    """One way to break the service: which process gets which signal."""

    name: str
    find: Callable[[SoakStack], psutil.Process | None]
    signal: signal.Signals = signal.SIGKILL


def _stub(model: str, number: signal.Signals = signal.SIGKILL) -> Fault:
    verb = "killed" if number is signal.SIGKILL else "frozen"
    return Fault(f"{model} {verb}", lambda stack: stack.stub(model), number)


TRITON = Fault("tritonserver killed", SoakStack.triton_server)
FAULTS = (TRITON, *(_stub(model) for model in STUBS), _stub("wav2lip", signal.SIGSTOP))


class Chaos:
    """Injects faults from its own thread."""

    def __init__(
        self, stack: SoakStack, outcomes: Outcomes, case: FormCase, seed: int, first: Sequence[Fault] = ()
    ) -> None:
        """Make it; `case` is the form that shows that the service has recovered, `first` the faults to begin with."""
        self._stack, self._outcomes, self._case = stack, outcomes, case
        self._random = random.Random(seed)
        self._queue: list[Fault] = list(reversed(first))
        self.injected = 0

    def inject(self, fault: Fault | None = None) -> None:
        """Cause one fault, by default the next of a random order, and wait until a form succeeds again."""
        if fault is None:
            if not self._queue:
                self._queue = self._random.sample(FAULTS, len(FAULTS))
            fault = self._queue.pop()
        self.injected += 1
        victim = fault.find(self._stack)
        if victim is None:
            self._outcomes.fail("chaos", f"{fault.name}: there is no such process")
            return
        begin = time.monotonic()
        self._outcomes.fault()
        victim.send_signal(fault.signal)
        self._wait_for_a_new_process(fault, victim, begin)
        while time.monotonic() - begin < MAX_RECOVERY:
            if self._form_succeeds():
                self._outcomes.recovered(fault.name, time.monotonic() - begin)
                return
            time.sleep(0.2)
        self._outcomes.fail("chaos", f"{fault.name}: no good form within {MAX_RECOVERY:.0f} s")

    def every(self, seconds: float, stopped: threading.Event) -> None:
        """Cause one fault per `seconds` until stopped."""
        while not stopped.wait(seconds):
            self.inject()

    def _wait_for_a_new_process(self, fault: Fault, victim: psutil.Process, begin: float) -> None:
        """Forms may succeed without the victim's model: the service has recovered when the process is replaced."""
        while time.monotonic() - begin < MAX_RECOVERY:
            successor = fault.find(self._stack)
            if successor is not None and successor.pid != victim.pid:
                return
            time.sleep(0.1)

    def _form_succeeds(self) -> bool:
        try:
            return self._case.post(self._stack.url).status_code == 200
        except httpx.HTTPError:
            return False
