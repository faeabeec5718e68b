"""Clean up after a server even if the process that started it was killed.

This file runs as a script next to the server (`python watchdog.py PREFIX FOLDER`, standard library only) and reads
commands from its standard input: `watch PID` names the server's process group, `done` means that everything was cleaned
up. If the input ends without `done`, the parent has died: the script kills the group and removes its shared memory and
temporary folder.

PR_SET_PDEATHSIG is no alternative: the kernel sends it when the parent's *thread* ends, it does not reach the stubs,
and shared memory and files would remain.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory


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
    prefix, folder = sys.argv[1], Path(sys.argv[2])
    group = 0
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "done":
            return
        group = int(value)
    if group:
        kill_group(group)
    remove_leftovers(prefix, folder)


if __name__ == "__main__":
    main()
