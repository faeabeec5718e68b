import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import FfmpegFault, StorageFault
from avatar.media import ffmpeg
from avatar.media.ffmpeg_errors import MAX_FILE_BYTES
from tests.support.fake_ffmpeg import FakeFfmpeg
from tests.support.media import children, until

ENDLESS = ("-f", "lavfi", "-i", "testsrc2=s=64x48", "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1")


async def _read_forever() -> None:
    async with ffmpeg.FfmpegProcess(ENDLESS) as process:
        await process.read_all()


async def test_run_returns_stdout() -> None:
    assert b"testsrc2" in (await ffmpeg.run(("-hide_banner", "-filters")))[0]


async def test_an_error_has_the_exit_status_and_the_end_of_stderr() -> None:
    with pytest.raises(ffmpeg.FfmpegError) as failed:
        await ffmpeg.run(("-hide_banner", "-loglevel", "error", "-i", "file:/no/such/file", "-f", "null", "-"))
    assert failed.value.exit_status > 0
    assert "No such file" in failed.value.stderr_tail
    assert "/no/such" not in str(failed.value)


async def test_only_the_end_of_a_long_stderr_is_kept() -> None:
    _, stderr_tail = await ffmpeg.run(("-loglevel", "debug", *ENDLESS[:4], "-t", "20", "-f", "null", "-"))
    assert 0 < len(stderr_tail) <= ffmpeg.STDERR_TAIL_BYTES


async def test_a_process_that_waits_until_its_deadline_is_killed_and_not_the_files_fault() -> None:
    before = children()
    with pytest.raises(FfmpegFault, match="no progress"):
        await ffmpeg.run(("-re", *ENDLESS), seconds=2)
    buffer = np.empty(1_000_000_000, np.uint8)
    with pytest.raises(FfmpegFault, match="no progress"):
        async with ffmpeg.FfmpegProcess(("-re", *ENDLESS)) as process:
            await process.read_into(buffer.data, seconds=2)
    assert children() == before


@pytest.mark.parametrize("times", [2, 4])  # of the reading, of the wait for the end, and by each layer above once more
async def test_a_process_whose_end_is_waited_for_is_gone_when_that_wait_is_cancelled(times: int) -> None:
    ffmpeg.executable()  # which starts a process when it is called first
    before = children()
    for _ in range(5):
        task = asyncio.create_task(_read_forever())
        await until(lambda: children() != before)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == before


async def test_a_process_that_is_busy_until_its_deadline_is_killed() -> None:
    before = children()
    with pytest.raises(ffmpeg.FfmpegTimeout) as timeout:
        await ffmpeg.run((*ENDLESS[:4], "-vf", "gblur=sigma=20", "-f", "null", "-"), seconds=1)
    assert "processor time" in timeout.value.stderr_tail
    assert children() == before


async def test_an_encoder_that_reads_nothing_is_killed_at_its_deadline(fake: FakeFfmpeg) -> None:
    before = children()
    fake.fail("hung")
    frames = np.zeros(4 << 20, np.uint8)  # more than a pipe holds
    with pytest.raises(FfmpegFault, match="no progress"):
        async with ffmpeg.FfmpegProcess(("-i", "pipe:0"), stdin=True) as process:
            await process.write(frames.data, seconds=0.5)
    with pytest.raises(FfmpegFault, match="no progress"):
        async with ffmpeg.FfmpegProcess(("-i", "pipe:0"), stdin=True) as process:
            await process.finish(seconds=0.5)
    assert children() == before


@pytest.fixture
def hangup() -> Iterator[None]:
    """Let SIGHUP end child processes, where the tests run under nohup too: what is ignored is ignored by children."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_process_that_is_killed_from_outside_is_the_machines_fault(end: signal.Signals) -> None:
    before = children()
    with pytest.raises(FfmpegFault, match="killed") as fault:
        async with ffmpeg.FfmpegProcess(("-loglevel", "error", *ENDLESS)) as process:
            buffer = np.empty(64 * 48 * 3, np.uint8)
            await process.read_into(buffer.data)
            (child,) = children() - before
            os.kill(child, end)
            async with process.deadline(60):
                await process.read_all()
            await process.finish()
    assert isinstance(fault.value.__cause__, ffmpeg.FfmpegError)


@pytest.mark.parametrize("program", ["kill -KILL $$", "kill -TERM $$", "exit 127"])
async def test_a_script_whose_program_is_killed_or_cannot_start_is_the_machines_fault(
    fake: FakeFfmpeg, program: str
) -> None:
    fake.program.write_text(f"#!/bin/sh\n/bin/sh -c '{program}'\n")
    with pytest.raises(FfmpegFault):
        await ffmpeg.run(("-version",))


async def test_a_crash_may_be_due_to_the_file(fake: FakeFfmpeg) -> None:
    fake.fail("crashed")
    with pytest.raises(ffmpeg.FfmpegError) as crash:
        await ffmpeg.run(("-version",))
    assert crash.value.exit_status == -signal.SIGSEGV


async def test_a_program_that_was_replaced_is_looked_up_again(fake: FakeFfmpeg) -> None:
    fake.program.unlink()
    with pytest.raises(FfmpegFault, match=r"cannot be started \(No such file"):
        await ffmpeg.run(("-version",))
    stdout, _ = await ffmpeg.run(("-version",))  # the static build
    assert stdout.startswith(b"ffmpeg version")


@pytest.mark.parametrize("mode", [0o644, 0o755])
async def test_a_file_that_is_no_program_is_the_machines_fault(fake: FakeFfmpeg, mode: int) -> None:
    fake.program.write_text("#!/no/such/interpreter\n")
    fake.program.chmod(mode)
    with pytest.raises(FfmpegFault, match="cannot be started"):
        await ffmpeg.run(("-version",))


async def test_a_program_that_a_script_has_started_is_killed_too(fake: FakeFfmpeg) -> None:
    fake.program.write_text("#!/bin/sh\nsleep 1000\nexit 0\n")
    async with asyncio.timeout(60):
        with pytest.raises(FfmpegFault, match="no progress"):
            await ffmpeg.run(("-version",), seconds=0.5)


async def test_a_lower_limit_of_the_service_stays_and_exceeding_it_is_the_machines_fault(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageFault, match="file size limit"):
            await ffmpeg.run((*ENDLESS[:-1], f"file:{tmp_path / 'frames'}"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "frames").stat().st_size <= 10_000


async def test_memory_and_file_size_are_limited() -> None:
    before = children()
    async with ffmpeg.FfmpegProcess(ENDLESS):
        (child,) = children() - before
        limits = Path(f"/proc/{child}/limits").read_text()  # noqa: ASYNC240
    assert str(ffmpeg.MAX_MEMORY) in next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert str(MAX_FILE_BYTES) in next(line for line in limits.splitlines() if line.startswith("Max file size"))


async def test_leaving_the_block_kills_an_endless_process() -> None:
    before = children()
    buffer = np.empty(64 * 48 * 3, np.uint8)
    async with ffmpeg.FfmpegProcess(ENDLESS) as process:
        assert await process.read_into(buffer.data) == buffer.size
        assert children() > before
    assert children() == before


async def test_cancelling_a_read_kills_the_process() -> None:
    before = children()
    task = asyncio.create_task(_read_forever())
    await until(lambda: children() != before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


async def test_a_process_cancelled_twice_is_reaped() -> None:
    before = children()
    task = asyncio.create_task(_read_forever())
    await until(lambda: children() != before)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: children() == before)


async def test_writing_to_an_ended_process_raises_its_error() -> None:
    args = ("-hide_banner", "-loglevel", "error", "-f", "no_such_format", "-i", "pipe:0", "-f", "null", "-")
    with pytest.raises(ffmpeg.FfmpegError) as failed:
        async with ffmpeg.FfmpegProcess(args, stdin=True) as process:
            while True:
                await process.write(np.zeros(1 << 20, np.uint8).data)
    assert "no_such_format" in failed.value.stderr_tail


async def test_a_read_is_short_only_at_the_end() -> None:
    async with ffmpeg.FfmpegProcess((*ENDLESS[:4], "-frames:v", "3", *ENDLESS[4:])) as process:
        buffer = np.empty(2 * 64 * 48 * 3, np.uint8)
        assert await process.read_into(buffer.data) == buffer.size
        assert await process.read_into(buffer.data) == buffer.size // 2
        await process.finish()


@pytest.mark.parametrize(
    ("command", "is_used"),
    [("echo -vsync", False), ("echo '-fps_mode[:<spec>]'", True), ("kill -KILL $$", False), ("exec sleep 1000", False)],
    ids=["old", "new", "killed", "hung"],
)
def test_the_systems_ffmpeg_is_used_if_it_works_and_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, is_used: bool
) -> None:
    monkeypatch.setattr(ffmpeg, "USAGE_TIMEOUT", 1.0)
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    ffmpeg.executable.cache_clear()
    try:
        assert (ffmpeg.executable() == str(program)) is is_used
    finally:
        ffmpeg.executable.cache_clear()


@pytest.mark.parametrize("way", ["run", "identity"])
async def test_a_program_that_was_removed_costs_one_job_where_another_is_installed(fake: FakeFfmpeg, way: str) -> None:
    async def use() -> None:
        if way == "run":
            await ffmpeg.run(("-version",))
        else:
            ffmpeg.identity()

    await use()
    fake.program.unlink()
    with pytest.raises(FfmpegFault, match="cannot be started"):
        await use()
    await use()
    assert ffmpeg.executable() != str(fake.program)
