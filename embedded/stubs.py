"""The processes in which Triton runs Python models ("stubs"), as /proc shows them.

Only the standard library is imported: Triton's container runs this file too, through `embedded.guard`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_COMMAND = "triton_python_b"  # triton_python_backend_stub, as the kernel cuts it off
_INSTANCE = re.compile(r"^(?P<model>.+)_\d+_\d+$")  # model, instance group, instance

DEAD = "ZX"
STOPPED = "Tt"
RUNNABLE = "RD"


@dataclass(frozen=True)
class Process:
    """A process at one moment.

    Attributes:
        command: its name, at most 15 characters.
        state: the kernel's letter: R runs, S waits, D waits for a device, T and t stopped, Z and X dead.
        parent: process id of its parent.
        cpu_seconds: CPU time that all its threads have used.
    """

    command: str
    state: str
    parent: int
    cpu_seconds: float


@dataclass(frozen=True)
class Stub:
    """A stub: its process id and the model that it runs."""

    pid: int
    model: str


def read_process(pid: int) -> Process | None:
    """Return the process with this id, or None if there is none."""
    try:
        # "PID (NAME) STATE PARENT …"; the name may contain spaces and brackets
        head, _, tail = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    ticks = int(fields[11]) + int(fields[12])  # in user mode and in the kernel
    return Process(head.partition("(")[2], fields[0], int(fields[1]), ticks / _TICKS_PER_SECOND)


def has_runnable_thread(pid: int) -> bool:
    """Return whether a thread of the process runs, waits for a core, or waits for a device."""
    with suppress(OSError):
        for thread in (PROC / str(pid) / "task").iterdir():
            with suppress(OSError):  # it has ended
                if (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in RUNNABLE:
                    return True
    return False


def find_stubs(server: int) -> list[Stub]:
    """Return the stubs of the server with this process id, dead ones that it has not reaped included."""
    found = []
    for pid in _process_ids():
        process = read_process(pid)
        if process and process.parent == server and process.command == _COMMAND:
            found.append(Stub(pid, _model_of(pid)))
    return found


def _process_ids() -> Iterator[int]:
    with suppress(OSError):
        for entry in PROC.iterdir():
            if entry.name.isdigit():
                yield int(entry.name)


def _model_of(pid: int) -> str:
    """Return the model of a stub: its last argument but one is `MODEL_GROUP_INSTANCE`. A dead stub has no arguments."""
    with suppress(OSError):
        arguments = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        for argument in reversed(arguments):
            if found := _INSTANCE.match(argument):
                return found["model"]
    return "(unknown)"
