"""`python -m tests.soak.recovery`: kill each process of the service in turn, and print how long it took to recover."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.soak import stack
from tests.soak.chaos import FAULTS, Fault
from tests.soak.forms import FormCase, write_forms
from tests.support import tiny_repository

POSTERS = 2  # callers that post one form after the other, so that some are under way at the kill
BEFORE_SECONDS = 1.0  # of good forms before the kill
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """The answer to one form; the times count from the kill, and status 0 means that there was none."""

    sent: float
    received: float
    status: int
    retry_after: str
    detail: str

    @property
    def is_allowed(self) -> bool:
        """Return whether a caller may get this answer while the service recovers."""
        return self.status == httpx.codes.OK or (
            self.status == httpx.codes.SERVICE_UNAVAILABLE and self.retry_after != ""
        )


@dataclass(frozen=True)
class Recovery:
    """What callers saw of one fault.

    Attributes:
        fault: its name.
        replaced: seconds until there was a new process; None if none came.
        good: seconds until a form was answered that was sent after that; None if none was.
        answers: all answers, in the order of their arrival.
    """

    fault: str
    replaced: float | None
    good: float | None
    answers: tuple[Answer, ...]

    @property
    def rejected(self) -> list[Answer]:
        """Return the answers with 503."""
        return [answer for answer in self.answers if answer.status == httpx.codes.SERVICE_UNAVAILABLE]

    @property
    def row(self) -> str:
        """Return the row of the table."""
        times = [f"{answer.received:.1f}" for answer in (*self.rejected[:1], *self.rejected[-1:])]
        span = " to ".join(dict.fromkeys(times)) or "none"
        wrong = len([answer for answer in self.answers if not answer.is_allowed])
        return f"| {self.fault} | {_shown(self.replaced)} | {span} | {_shown(self.good)} | {wrong} |"


HEAD = "| fault | new process after | 503 between | next good form after | other answers |\n|---|--:|--:|--:|--:|"


class Posters:
    """Callers that post the same forms over and over, and note the answers."""

    def __init__(self, url: str, cases: Sequence[FormCase]) -> None:
        """Prepare the callers; `cases` are posted in turn."""
        self._url, self._cases = url, cases
        self._stopped = threading.Event()
        self._start = time.monotonic()
        self._threads = [threading.Thread(target=self._post, args=(n,), daemon=True) for n in range(POSTERS)]
        self.answers: list[Answer] = []

    def __enter__(self) -> Posters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)

    def begin(self) -> None:
        """Count time from now, and forget the answers so far."""
        self._start, self.answers = time.monotonic(), []

    def seconds(self) -> float:
        """Return the time since the beginning."""
        return time.monotonic() - self._start

    def good_since(self, seconds: float) -> float | None:
        """Return when the first good answer came to a form that was sent after that time."""
        good = (answer for answer in list(self.answers) if answer.status == httpx.codes.OK and answer.sent >= seconds)
        return next((answer.received for answer in good), None)

    def _post(self, number: int) -> None:
        for n in range(number, sys.maxsize):
            if self._stopped.is_set():
                return
            sent = self.seconds()
            try:
                response = self._cases[n % len(self._cases)].post(self._url)
            except httpx.HTTPError as error:
                answer = Answer(sent, self.seconds(), 0, "", str(error))
            else:
                detail = response.text if response.status_code != httpx.codes.OK else ""
                retry_after = response.headers.get("Retry-After", "")
                answer = Answer(sent, self.seconds(), response.status_code, retry_after, detail)
            self.answers.append(answer)
            time.sleep(0.0 if answer.status == httpx.codes.OK else 0.1)


def measure(service: stack.SoakStack, fault: Fault, cases: Sequence[FormCase]) -> Recovery:
    """Cause a fault while forms are under way, and return what callers saw until all was good again."""
    with Posters(service.url, cases) as posters:
        time.sleep(BEFORE_SECONDS)
        victim = fault.find(service)
        if victim is None:
            raise RuntimeError(f"{fault.name}: there is no such process")
        posters.begin()
        victim.send_signal(fault.signal)
        replaced = good = None
        while good is None and posters.seconds() < LIMIT_SECONDS:
            time.sleep(0.05)
            successor = fault.find(service)
            if replaced is None and successor is not None and successor.pid != victim.pid:
                replaced = posters.seconds()
            if replaced is not None:
                good = posters.good_since(replaced)
    return Recovery(fault.name, replaced, good, tuple(posters.answers))


def stills(folder: Path) -> list[FormCase]:
    """Return forms that need every model: what was seen once is cached, so the service has to run without a cache."""
    return [case for case in write_forms(folder) if case.name in ("still", "still on white")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 all recovered, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.recovery", description=__doc__)
    parser.add_argument("--repository", type=Path, help="exported models (default: tiny nets made for tests)")
    options = parser.parse_args(argv)
    print(HEAD)
    recovered = True
    with tempfile.TemporaryDirectory(prefix="avatar-recovery-") as folder:
        cases = stills(Path(folder))
        if options.repository is None:
            tiny_repository.write(Path(folder) / "repository")
        with stack.running(options.repository or Path(folder) / "repository", Path(folder)) as service:
            for fault in FAULTS:
                recovery = measure(service, fault, cases)
                print(recovery.row, flush=True)
                recovered &= recovery.good is not None and all(answer.is_allowed for answer in recovery.answers)
                time.sleep(21.0)  # so that the supervisor begins with its shortest pause
    return 0 if recovered else 1


def _shown(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
