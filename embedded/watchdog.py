"""Cleans up after a server, also when the process that started it was killed.

Run as a script beside the server (`python guard.py PREFIX FOLDER`, standard library only), it reads
its standard input: `watch PID` names the server's process group, `done` says that everything was
cleaned up. The input's end without `done` means that the parent died: the group is killed, and its
shared memory and temporary folder are removed.

PR_SET_PDEATHSIG would not do: it fires when the parent's *thread* ends, knows nothing of the stubs,
and leaves shared memory and files behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108  where Linux keeps POSIX shared memory


def kill_group(group: int, patience: float = 5.0) -> None:
    """SIGKILL a process group and wait until no process of it runs."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        if not group_runs(group):
            return
        time.sleep(0.01)


def group_runs(group: int) -> bool:
    """Whether any process of the group is alive; a zombie is not."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            # "PID (NAME) STATE PARENT GROUP …"; the name may hold spaces and brackets
            state, _, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if entry.name.isdigit() and int(owner) == group and state not in "ZX":
                return True
    return False


def remove_leftovers(prefix: str, folder: Path) -> None:
    """Remove the shared memory regions whose names begin with `prefix`, and the folder."""
    for region in SHM.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Wait for the parent's word, or for its end."""
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
