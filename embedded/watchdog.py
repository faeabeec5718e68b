"""Clean up after a server even if the process that started it was killed.

This file runs as a script next to the server (`python watchdog.py [PREFIX FOLDER]`, standard library only) and reads
commands from its standard input: `watch PID [SIGNAL]` names the server's process group, `done` means that everything
was cleaned up. If the input ends without `done`, the parent has died: the script kills the group and removes its shared
memory and temporary folder, if it has any. With SIGNAL the server gets that first, and ten seconds to end by itself.

PR_SET_PDEATHSIG is no alternative: the kernel sends it when the parent's *thread* ends, it does not reach the stubs,
and shared memory and files would remain.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
# The beginning of the names of a server's regions there. Newer servers refuse clients that name a region so as theirs.
REGIONS = "triton_python_backend_shm_region_"


class Watchdog:
    """The script, run by the process whose end it waits for."""

    def __init__(self, prefix: str = "", folder: Path | None = None) -> None:
        """Start the script; it removes the folder, and the shared memory whose names start with `prefix`."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, *([prefix, str(folder)] if folder else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=os.sep,
        )

    def watch(self, group: int, first: signal.Signals | None = None) -> None:
        """Have this process group killed if this process ends without a word; `first`: the signal to try before."""
        self._send(f"watch {group} {first.value}" if first else f"watch {group}")

    def dismiss(self) -> None:
        """End the script: everything was cleaned up. A second call has no effect."""
        self._send("done")
        if self._process.stdin and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _send(self, message: str) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            with suppress(BrokenPipeError):  # if the script was killed, the server still works
                self._process.stdin.write(f"{message}\n".encode())
                self._process.stdin.flush()


def kill_group(group: int, timeout: float = 5.0) -> None:
    """Kill a process group with SIGKILL, and wait up to `timeout` seconds until none of its processes runs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        if not group_runs(group):
            return
        time.sleep(0.01)


def end_group(group: int, number: int, timeout: float = 10.0) -> None:
    """Send a signal to a group's first process, and wait up to `timeout` seconds until no process of the group runs."""
    with suppress(ProcessLookupError):
        os.kill(group, number)
    deadline = time.monotonic() + timeout
    while group_runs(group) and time.monotonic() < deadline:
        time.sleep(0.05)


def group_runs(group: int) -> bool:
    """Return whether any process of the group is alive; zombies do not count."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            # "PID (NAME) STATE PARENT GROUP …"; the name may contain spaces and brackets
            state, _, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if entry.name.isdigit() and int(owner) == group and state not in "ZX":
                return True
    return False


def remove_leftovers(prefix: str, folder: Path) -> None:
    """Remove the folder, and the shared memory regions whose names start with `prefix`."""
    for region in SHM.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Wait for the parent's commands, or for its end."""
    group, first = 0, None
    for line in sys.stdin:
        word, *values = line.split()
        if word == "done":
            return
        group, first = int(values[0]), int(values[1]) if len(values) > 1 else None
    if group and first is not None:
        end_group(group, first)
    if group:
        kill_group(group)
    if leftovers := sys.argv[1:]:
        remove_leftovers(leftovers[0], Path(leftovers[1]))


if __name__ == "__main__":
    main()
