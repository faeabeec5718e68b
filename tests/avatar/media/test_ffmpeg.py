import asyncio
from pathlib import Path

import numpy as np
import pytest

from avatar.media import ffmpeg
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


async def test_a_process_without_progress_is_killed() -> None:
    before = children()
    with pytest.raises(ffmpeg.FfmpegTimeout):
        await ffmpeg.run(("-re", *ENDLESS), seconds=0.5)
    buffer = np.empty(1_000_000_000, np.uint8)
    with pytest.raises(ffmpeg.FfmpegTimeout):
        async with ffmpeg.FfmpegProcess(("-re", *ENDLESS)) as process:
            await process.read_into(buffer.data, seconds=0.5)
    assert children() == before


async def test_memory_and_file_size_are_limited() -> None:
    before = children()
    async with ffmpeg.FfmpegProcess(ENDLESS):
        (child,) = children() - before
        limits = Path(f"/proc/{child}/limits").read_text()  # noqa: ASYNC240
    assert str(ffmpeg.MAX_MEMORY) in next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert str(ffmpeg.MAX_FILE_BYTES) in next(line for line in limits.splitlines() if line.startswith("Max file size"))


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


@pytest.mark.parametrize(("help_text", "is_used"), [("-vsync", False), ("-fps_mode[:<spec>]", True)])
def test_the_systems_ffmpeg_is_used_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, help_text: str, is_used: bool
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho '{help_text}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    ffmpeg.executable.cache_clear()
    try:
        assert (ffmpeg.executable() == str(program)) is is_used
    finally:
        ffmpeg.executable.cache_clear()
