"""Faults of the machine: what callers get, what the readiness page says, and what is logged and counted."""

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from avatar.errors import FfmpegFault, StorageFault
from avatar.media.self_test import SelfTest
from avatar.resources.workspace import Workspace
from gateway import machine
from gateway.machine import Machine
from tests.support.gateway_fakes import FakeRender, Serve, form, leftovers, service_of


def remove_content(work: Path) -> None:
    for folder in work.iterdir():
        shutil.rmtree(folder)


def replace_by_a_file(work: Path) -> None:
    work.rename(work.with_name("moved"))
    work.write_bytes(b"not a folder")


def restore(work: Path) -> None:
    work.unlink()
    work.with_name("moved").rename(work)


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.ENOSPC, "StorageFault", "no space left on the disk"),
        (errno.EDQUOT, "StorageFault", "the disk quota is used up"),
        (errno.EROFS, "StorageFault", "the file system is read-only"),
        (errno.EIO, "StorageFault", "the disk reports an input/output error"),
        (errno.EFBIG, "StorageFault", "a file reached the file size limit of the process"),
        (errno.EMFILE, "ResourceFault", "too many open files in the process"),
        (errno.ENFILE, "ResourceFault", "too many open files on the machine"),
        (errno.ENOMEM, "ResourceFault", "not enough memory"),
    ],
)
async def test_an_error_of_the_machine_is_a_503_that_is_counted_logged_and_shown(
    client: httpx.AsyncClient,
    render: FakeRender,
    work: Path,
    caplog: pytest.LogCaptureFixture,
    number: int,
    kind: str,
    reason: str,
) -> None:
    render.error = OSError(number, os.strerror(number), str(work / "secret-path"))
    response = await client.post("/", files=form())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json() == {"detail": f"the service has a fault: {reason}; try again later"}
    assert leftovers(work) == []
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert reason in line.getMessage()
    assert "secret-path" in line.getMessage()
    assert f'avatar_errors_total{{kind="{kind}"}} 1.0' in (await client.get("/metrics")).text
    health = (await client.get("/health/ready")).json()
    assert health["last_fault"] == reason
    assert health["last_fault_seconds_ago"] < 60


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread")])
async def test_a_thread_that_cannot_be_started_is_a_503(
    client: httpx.AsyncClient, render: FakeRender, error: Exception
) -> None:
    render.error = error
    response = await client.post("/", files=form())
    assert response.status_code == 503
    assert "no more threads" in response.json()["detail"]


@pytest.mark.parametrize(
    "error",
    [OSError("without a number"), FileNotFoundError(errno.ENOENT, "no such file", "/no"), RuntimeError("a bug")],
)
async def test_other_errors_stay_defects(client: httpx.AsyncClient, render: FakeRender, error: Exception) -> None:
    render.error = error
    response = await client.post("/", files=form())
    assert (response.status_code, response.json()["detail"]) == (500, "internal error")
    assert "last_fault" not in (await client.get("/health/ready")).json()


async def test_a_removed_work_folder_is_created_again_for_the_next_form(client: httpx.AsyncClient, work: Path) -> None:
    remove_content(work)
    assert (await client.post("/", files=form())).status_code == 200


async def test_a_work_folder_that_is_removed_during_an_upload_is_a_503(
    client: httpx.AsyncClient, render: FakeRender, work: Path
) -> None:
    whole = client.build_request("POST", "/", files=form())
    data = await whole.aread()

    async def body() -> AsyncIterator[bytes]:
        yield data[:10]
        remove_content(work)
        yield data[10:]

    response = await client.post("/", content=body(), headers={"content-type": whole.headers["content-type"]})
    assert response.status_code == 503
    assert "work folder was removed" in response.json()["detail"]


async def test_readiness_names_a_work_folder_that_cannot_be_written(serve: Serve, work: Path) -> None:
    async with serve() as client:
        assert (await client.get("/health/ready")).status_code == 200
        replace_by_a_file(work)
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert "work folder" in response.json()["detail"]
        assert str(work) not in response.text
        assert (await client.post("/", files=form())).status_code == 503
        restore(work)
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/", files=form())).status_code == 200


class FakeTest(SelfTest):
    """A self-test of ffmpeg that fails, or waits, if the test says so."""

    def __init__(self) -> None:
        super().__init__(self._run_fake)
        self.runs = 0
        self.fault: FfmpegFault | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def _run_fake(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.fault:
            raise self.fault


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path)
    workspace.open()
    yield workspace
    workspace.close()


async def test_readiness_tests_ffmpeg_seldom_and_after_a_fault_at_once(workspace: Workspace) -> None:
    test = FakeTest()
    checked = Machine(workspace, test)
    for _ in range(3):
        await checked.check()
    assert test.runs == 1
    checked.record(StorageFault("of the disk"))
    await checked.check()
    assert test.runs == 1
    checked.record(FfmpegFault("ffmpeg was killed"))
    test.fault = FfmpegFault("ffmpeg is not installed")
    with pytest.raises(FfmpegFault, match="not installed"):
        await checked.check()
    assert test.runs == 2


async def test_a_job_tests_ffmpeg_again_only_if_the_last_test_failed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = FakeTest()
    checked = Machine(workspace, test)
    await checked.check_failing()
    assert test.runs == 0
    test.fault = FfmpegFault("ffmpeg was killed")
    with pytest.raises(FfmpegFault):
        await checked.check()
    with pytest.raises(FfmpegFault):
        await checked.check_failing()
    assert test.runs == 1  # a failure counts for some seconds
    monkeypatch.setattr("avatar.media.self_test.FAILURE_SECONDS", 0.0)
    test.fault = None
    await checked.check_failing()
    assert test.runs == 2


async def test_readiness_does_not_wait_for_a_slow_test_of_ffmpeg(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "WAIT_SECONDS", 0.1)
    test = FakeTest()
    test.gate.clear()
    checked = Machine(workspace, test)
    await checked.check()  # no result yet: a busy machine is ready
    test.fault = FfmpegFault("ffmpeg makes no progress")
    test.gate.set()
    await asyncio.sleep(0.1)
    with pytest.raises(FfmpegFault, match="no progress"):
        await checked.check()


async def test_a_disk_that_does_not_respond_occupies_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "WAIT_SECONDS", 0.1)
    started = 0
    released = asyncio.Event()
    loop = asyncio.get_running_loop()

    class HungWorkspace(Workspace):
        def check(self) -> None:
            nonlocal started
            started += 1
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result()

    checked = Machine(HungWorkspace(tmp_path), None)
    for _ in range(3):
        with pytest.raises(StorageFault, match="does not respond"):
            await checked.check()
    assert started == 1
    released.set()
    async with asyncio.timeout(20):
        while True:
            with suppress(StorageFault):  # until the thread has ended
                await checked.check()
                break


async def test_a_fault_that_readiness_finds_is_its_503(serve: Serve) -> None:
    async with serve() as client:
        service = service_of(client)
        test = FakeTest()
        test.fault = FfmpegFault("ffmpeg is not installed")
        object.__setattr__(service, "machine", Machine(service.workspace, test))
        response = await client.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {"detail": "the service has a fault: ffmpeg is not installed; try again later"}
        assert response.headers["retry-after"]
        assert (await client.get("/health/live")).status_code == 200
