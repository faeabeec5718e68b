"""Folders of processes and requests: private, and removed at the end."""

import asyncio
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avatar.errors import ResourceFault, StorageFault
from avatar.resources.workspace import Workspace
from tests.support.gateway_fakes import contents


async def test_a_request_folder_is_new_and_private_and_removed_afterwards(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    async with workspace.folder() as first, workspace.folder() as second:
        assert first != second
        assert first.stat().st_mode & 0o077 == 0
        (first / "deep" / "er").mkdir(parents=True)
        (first / "deep" / "er" / "file").write_bytes(b"x")
    assert contents(workspace.root) == []
    workspace.close()
    assert contents(tmp_path) == []


@pytest.mark.parametrize("end", [RuntimeError("failed"), asyncio.CancelledError()])
async def test_a_request_folder_is_removed_also_after_an_error(tmp_path: Path, end: BaseException) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    with pytest.raises(type(end)):
        async with workspace.folder() as folder:
            (folder / "file").write_bytes(b"x")
            raise end
    assert contents(workspace.root) == []
    workspace.close()


async def test_waiting_until_unused_ends_with_the_last_request(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    async with workspace.folder():
        waiting = asyncio.create_task(workspace.wait_unused())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
    workspace.close()


def test_a_folder_in_use_by_another_process_is_not_removed(tmp_path: Path) -> None:
    running, starting = Workspace(tmp_path), Workspace(tmp_path)
    running.open()
    starting.open()
    assert running.root.is_dir()
    running.close()
    starting.close()
    assert contents(tmp_path) == []


def test_a_link_with_the_name_of_a_work_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    (tmp_path / "avatar-work-link").symlink_to(precious)
    workspace = Workspace(tmp_path)
    workspace.open()
    workspace.close()
    assert (precious / "file").exists()


@pytest.mark.parametrize("removed", ["the process's folder", "the configured folder"])
async def test_a_removed_folder_is_created_again_private_and_locked(tmp_path: Path, removed: str) -> None:
    parent = tmp_path / "work"
    parent.mkdir()
    workspace = Workspace(parent)
    workspace.open()
    lost = workspace.root
    shutil.rmtree(lost if removed == "the process's folder" else parent)
    async with workspace.folder() as folder:
        assert workspace.root != lost
        assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o700
        (folder / "file").write_bytes(b"x")
        other = Workspace(parent)  # of a process that is starting: it removes only folders that no process has locked
        other.open()
        assert (folder / "file").exists()
        other.close()
    workspace.close()
    assert contents(parent) == []


async def test_many_requests_after_a_removal_share_one_new_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    shutil.rmtree(workspace.root)

    async def request() -> Path:
        async with workspace.folder() as folder:
            await asyncio.sleep(0)
            return folder.parent

    assert len(set(await asyncio.gather(*(request() for _ in range(20))))) == 1
    workspace.close()
    assert contents(tmp_path) == []


async def test_a_folder_of_the_same_name_that_others_made_is_not_used(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    lost = workspace.root
    lost.rename(tmp_path / "moved")
    lost.mkdir(0o777)
    async with workspace.folder() as folder:
        assert folder.parent != lost
    workspace.close()


async def test_a_configured_folder_that_others_made_and_can_write_to_is_not_used(tmp_path: Path) -> None:
    parent = tmp_path / "work"
    parent.mkdir()
    workspace = Workspace(parent)
    workspace.open()
    parent.rename(tmp_path / "moved")
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(StorageFault, match="work folder cannot be used"):
        async with workspace.folder():
            pass
    parent.chmod(0o700)
    async with workspace.folder():
        pass
    workspace.close()


def test_the_check_finds_and_mends_a_removed_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    workspace.check()
    shutil.rmtree(workspace.root)
    workspace.check()
    assert contents(workspace.root) == []
    workspace.close()


@contextmanager
def limited(which: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(which)
    resource.setrlimit(which, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


def test_the_check_finds_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    with limited(resource.RLIMIT_FSIZE, 100), pytest.raises(StorageFault, match="file size limit"):
        workspace.check()
    assert contents(workspace.root) == []
    workspace.check()
    workspace.close()


def test_the_check_finds_that_no_file_can_be_opened(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    with limited(resource.RLIMIT_NOFILE, lowest_free), pytest.raises(ResourceFault, match="open files"):
        workspace.check()
    workspace.check()
    workspace.close()


def test_a_lock_keeps_the_folder_from_systemd_tmpfiles(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.open()
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", code, str(workspace.root)], capture_output=True, text=True)
    assert "BlockingIOError" in done.stderr
    workspace.close()


async def test_a_request_folder_that_cannot_be_removed_now_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avatar.resources.workspace._RETRY_DELAYS", (0.01,))
    workspace = Workspace(tmp_path)
    workspace.open()
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        async with workspace.folder() as folder:
            (folder / "file").write_bytes(b"x")
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert contents(workspace.root) == [folder, folder / "file"]
    async with workspace.folder() as other:
        assert contents(workspace.root) == [other]
    workspace.close()
