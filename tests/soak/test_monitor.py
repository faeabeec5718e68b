"""What the soak counts as shared memory of the service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory

import pytest

from tests.soak import monitor
from tests.support.postgres import temporary_folder

SIZE = 3 << 20
OTHER_PROCESS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0):
    print("mapped", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def region() -> Iterator[os.stat_result]:
    """A file of shared memory that this process maps."""
    shared = SharedMemory(create=True, size=SIZE)
    try:
        yield (monitor.SHM / shared.name).stat()
    finally:
        shared.close()
        shared.unlink()


def inodes(own: set[int]) -> set[int]:
    return {each.st_ino for each in monitor.regions_of(own)}


def test_shared_memory_of_the_service_is_counted(region: os.stat_result) -> None:
    assert region.st_ino in inodes({os.getpid()})


def test_shared_memory_that_another_process_maps_is_not_counted(region: os.stat_result) -> None:
    assert region.st_ino not in inodes(set())


def test_shared_memory_that_an_ended_process_left_is_counted() -> None:
    shared = SharedMemory(create=True, size=SIZE)
    path = monitor.SHM / shared.name
    shared.close()
    try:
        inode = path.stat().st_ino
        argv = [sys.executable, "-c", OTHER_PROCESS, str(path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "mapped\n"
            assert inode not in inodes(set())
            other.communicate()
        assert inode in inodes(set())
    finally:
        shared.unlink()


def test_the_databases_of_other_tests_are_not_shared_memory() -> None:
    with temporary_folder() as folder:
        file = folder / "data"
        file.write_bytes(bytes(SIZE))
        assert file.stat().st_ino not in inodes({os.getpid()})
