"""Run a program for minutes: with progress, a timeout, and its last lines if it fails."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import ExportError

PROGRESS_SECONDS = 30.0  # between two lines of progress
_KEPT_LINES = 200  # of the program's output
_SHOWN_LINES = 12  # of these in an error
_REMAINDER_SECONDS = 5.0  # for output that is still in the pipe when the program has ended


def run(
    argv: Sequence[str],
    folder: Path,
    timeout: float,
    on_wait: Callable[[float, str], None] = lambda seconds, line: None,
    progress_seconds: float = PROGRESS_SECONDS,
) -> list[str]:
    """Run a program to its end, and return its last lines.

    Args:
        argv: the program and its arguments.
        folder: the folder in which it runs.
        timeout: seconds after which it is killed.
        on_wait: takes the seconds that have passed and the program's last line, every `progress_seconds`.
        progress_seconds: see `on_wait`.

    Raises:
        ExportError: it could not be started, failed, or did not end in time.
    """
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise ExportError(f"{argv[0]} cannot be started: {error.strerror}") from error
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    started = time.monotonic()
    try:
        while process.poll() is None:
            passed = time.monotonic() - started
            if passed >= timeout:
                raise ExportError(f"{argv[0]} did not end within {timeout:g} s and was killed{_tail(lines)}")
            try:
                process.wait(min(progress_seconds, timeout - passed))
            except subprocess.TimeoutExpired:
                on_wait(time.monotonic() - started, lines[-1] if lines else "")
    finally:
        process.kill()
        process.wait()
        reader.join(_REMAINDER_SECONDS)
    if process.returncode:
        raise ExportError(f"{argv[0]} {_reason(process.returncode)}{_tail(lines)}")
    return list(lines)


def _read(process: subprocess.Popen[bytes], lines: deque[str]) -> None:
    if process.stdout is not None:
        with process.stdout as output:
            for line in output:
                lines.append(line.decode("utf-8", "replace").rstrip())


def _reason(status: int) -> str:
    if status == -9:
        return "was killed by the kernel, probably for lack of memory"
    return f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"


def _tail(lines: deque[str]) -> str:
    shown = [f"\n    {line}" for line in list(lines)[-_SHOWN_LINES:] if line]
    return "; its last lines:" + "".join(shown) if shown else ""
