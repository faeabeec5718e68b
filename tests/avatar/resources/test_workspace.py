"""Folders of processes and requests: private, and removed at the end."""

import asyncio
from pathlib import Path

import pytest

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
