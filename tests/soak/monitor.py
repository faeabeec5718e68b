"""Resources that the service holds at rest."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from tests.soak.stack import SoakStack
from tests.support.files import files_below

MIB = 1 << 20
SHM = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
GROWTH = 1.25  # factor by which a figure in MiB may exceed its baseline
SLACK_MIB = 48
SLACK_COUNT = 12  # descriptors and processes: a pool of connections or of threads may grow by a few


@dataclass(frozen=True)
class Resources:
    """What the service holds while no call is in flight.

    Attributes:
        gateway_mib: private memory of the gateway.
        triton_mib: memory (PSS) of tritonserver and its model processes.
        supervisor_mib: private memory of the other processes.
        descriptors: open files and sockets of all processes.
        processes: number of processes.
        shm_mib: shared memory that no process outside the service maps.
        shm_files: the number of its files.
        work_files: files below the work folder.
        folders: entries of the temporary folder of the service.
    """

    gateway_mib: int
    triton_mib: int
    supervisor_mib: int
    descriptors: int
    processes: int
    shm_mib: int
    shm_files: int
    work_files: int
    folders: int

    @classmethod
    def of(cls, stack: SoakStack) -> Resources:
        """Measure a running service."""
        gateway, server = stack.gateway(), stack.triton_server()
        models = [server, *server.children(recursive=True)] if server else []
        others = [each for each in stack.processes() if each != gateway and each not in models]
        regions = regions_of({each.pid for each in stack.processes()})
        return cls(
            gateway_mib=_memory([gateway] if gateway else [], "uss"),
            triton_mib=_memory(models, "pss"),
            supervisor_mib=_memory(others, "uss"),
            descriptors=sum(_descriptors(each) for each in stack.processes()),
            processes=len(stack.processes()),
            shm_mib=sum(each.st_blocks * 512 for each in regions) // MIB,
            shm_files=len(regions),
            work_files=len(files_below(stack.folder / "work")),
            folders=sum(1 for _ in (stack.folder / "tmp").iterdir()),
        )

    def growth_since(self, baseline: Resources) -> list[str]:
        """Return one line per figure that has grown by more than calls at rest explain."""
        lines = []
        for field in fields(self):
            before, after = getattr(baseline, field.name), getattr(self, field.name)
            allowed = before * GROWTH + SLACK_MIB if field.name.endswith("_mib") else before + SLACK_COUNT
            if field.name == "work_files":
                allowed = before
            if after > allowed:
                lines.append(f"{field.name} grew from {before} to {after}")
        return lines


def regions_of(own: Collection[int]) -> list[os.stat_result]:
    """Return the shared memory that these processes use, and what processes that ended left.

    Args:
        own: ids of the processes of the service.

    Returns:
        The files directly in /dev/shm, where shm_open makes them, that no other process maps: tests start and stop
        other servers at the same time. Files in folders are not shared memory: other tests keep databases there.
    """
    present = [path for path in SHM.iterdir() if path.is_file()]
    # read after the list, so that the region of a server that starts meanwhile is seen as the server's
    foreign: set[str] = set()
    for pid in psutil.pids():
        if pid not in own:
            with suppress(OSError):  # the process has ended
                maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
                foreign.update(re.findall(rf"{SHM}/\S+", maps))
    found = []
    for path in present:
        if str(path) not in foreign:
            with suppress(OSError):  # removed by its owner
                found.append(path.stat())
    return found


def _memory(processes: list[psutil.Process], kind: str) -> int:
    total = 0
    for each in processes:
        with suppress(psutil.Error):
            total += int(getattr(each.memory_full_info(), kind))
    return total // MIB


def _descriptors(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.num_fds())
    return 0
