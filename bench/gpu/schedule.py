"""Run the steps in their order, each in a process of its own with a time limit, until the time of the run is over.

A step that fails, hangs or crashes is recorded with the reason, and does not stop the others. Its rows are in a file as
soon as they are measured, so a step that is cut leaves what it has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import rows
from .rows import Row
from .steps import Step

DONE, FAILED, LEFT_OUT, CUT = "done", "failed", "left out", "cut"
LEFT_OUT_STATUS = 3  # exit status of a step that cannot run here
LEAST_SECONDS = 10.0  # a step is not started with less time than this
STOP_SECONDS = 25.0  # for a step to stop its servers after SIGTERM
Command = Callable[[Step], Sequence[str]]


@dataclass
class Outcome:
    """What became of a step: `DONE`, `FAILED`, `LEFT_OUT` or `CUT`, why, how long it took, and its rows."""

    step: Step
    status: str
    reason: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


def run(steps: Sequence[Step], command: Command, folder: Path, minutes: float) -> Iterator[Outcome]:
    """Run the steps; yield the outcome of each when it is known.

    Args:
        steps: in their order.
        command: returns the command line of a step.
        folder: for the rows and the logs of the steps.
        minutes: time of the whole run.
    """
    deadline = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    states: dict[str, str] = {}
    for step in steps:
        outcome = _outcome(step, command, folder, deadline - time.monotonic() - STOP_SECONDS, states)
        states[step.name] = outcome.status
        yield outcome


def _outcome(step: Step, command: Command, folder: Path, left: float, states: dict[str, str]) -> Outcome:
    """Run a step, if it can run."""
    if step.missing:
        return Outcome(step, LEFT_OUT, step.missing)
    missing = [name for name in step.after if states.get(name, DONE) != DONE]
    if missing:
        return Outcome(step, LEFT_OUT, f"it needs the step {', '.join(missing)}")
    if left < LEAST_SECONDS:
        return Outcome(step, LEFT_OUT, "no time left; give more --minutes, or fewer --steps")
    file, log = folder / f"{step.name}.jsonl", folder / f"{step.name}.log"
    file.unlink(missing_ok=True)
    begin = time.monotonic()
    limit = min(step.seconds, left)
    status = _run_process(command(step), log, limit)
    outcome = Outcome(step, DONE, "", time.monotonic() - begin, rows.read(file))
    if status is None:
        outcome.status, outcome.reason = CUT, f"not over after {limit:.0f} s"
    elif status:
        outcome.status = LEFT_OUT if status == LEFT_OUT_STATUS else FAILED
        outcome.reason = _last_line(log) or f"exit status {status}"
    return outcome


def _run_process(command: Sequence[str], log: Path, limit: float) -> int | None:
    """Run a process in a group of its own; return its exit status, or None if it was stopped after `limit` seconds."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, process_group=0)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:  # also on Ctrl-C
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let a process that still runs stop its servers; then end what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("bench: ") if lines else ""


def step_command(arguments: Sequence[str]) -> Command:
    """Return the command line of a step: this program with the arguments of the run, and the step's name."""
    return lambda step: [sys.executable, "-m", "bench", "gpu", *arguments, "--run-step", step.name]
