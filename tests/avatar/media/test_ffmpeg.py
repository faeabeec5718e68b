import asyncio
from pathlib import Path

import numpy as np
import pytest

from avatar.media import ffmpeg
from tests.support.media import children, until

ENDLESS = ("-f", "lavfi", "-i", "testsrc2=s=64x48", "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1")


async def _read_for_ever() -> None:
    async with ffmpeg.Process(ENDLESS) as process:
        await process.read_all()


async def test_output_is_what_ffmpeg_writes() -> None:
    assert b"testsrc2" in (await ffmpeg.output(("-hide_banner", "-filters")))[0]


async def test_a_failure_carries_the_status_and_the_last_words() -> None:
    with pytest.raises(ffmpeg.FfmpegFailed) as failed:
        await ffmpeg.output(("-hide_banner", "-loglevel", "error", "-i", "file:/no/such/file", "-f", "null", "-"))
    assert failed.value.exit_status > 0
    assert "No such file" in failed.value.words
    assert "/no/such" not in str(failed.value)


async def test_a_flood_of_words_is_cut() -> None:
    _, words = await ffmpeg.output(("-loglevel", "debug", *ENDLESS[:4], "-t", "20", "-f", "null", "-"))
    assert 0 < len(words) <= ffmpeg.WORDS


async def test_what_does_not_get_on_is_ended() -> None:
    before = children()
    with pytest.raises(ffmpeg.TookTooLong):
        await ffmpeg.output(("-re", *ENDLESS), seconds=0.5)
    room = np.empty(1_000_000_000, np.uint8)
    with pytest.raises(ffmpeg.TookTooLong):
        async with ffmpeg.Process(("-re", *ENDLESS)) as process:
            await process.read_into(room.data, seconds=0.5)
    assert children() == before


async def test_memory_and_the_size_of_files_are_limited() -> None:
    before = children()
    async with ffmpeg.Process(ENDLESS):
        (child,) = children() - before
        limits = Path(f"/proc/{child}/limits").read_text()  # noqa: ASYNC240
    assert str(ffmpeg.MEMORY) in next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert str(ffmpeg.FILE_BYTES) in next(line for line in limits.splitlines() if line.startswith("Max file size"))


async def test_leaving_the_block_ends_a_process_that_would_run_for_ever() -> None:
    before = children()
    room = np.empty(64 * 48 * 3, np.uint8)
    async with ffmpeg.Process(ENDLESS) as process:
        assert await process.read_into(room.data) == room.size
        assert children() > before
    assert children() == before


async def test_cancelling_a_read_ends_the_process() -> None:
    before = children()
    task = asyncio.create_task(_read_for_ever())
    await until(lambda: children() != before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before


async def test_a_process_cancelled_twice_is_reaped_all_the_same() -> None:
    before = children()
    task = asyncio.create_task(_read_for_ever())
    await until(lambda: children() != before)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: children() == before)


async def test_writing_to_a_process_that_has_ended_tells_why() -> None:
    args = ("-hide_banner", "-loglevel", "error", "-f", "no_such_format", "-i", "pipe:0", "-f", "null", "-")
    with pytest.raises(ffmpeg.FfmpegFailed) as failed:
        async with ffmpeg.Process(args, fed=True) as process:
            while True:
                await process.write(np.zeros(1 << 20, np.uint8).data)
    assert "no_such_format" in failed.value.words


async def test_less_than_asked_is_read_only_at_the_end() -> None:
    async with ffmpeg.Process((*ENDLESS[:4], "-frames:v", "3", *ENDLESS[4:])) as process:
        room = np.empty(2 * 64 * 48 * 3, np.uint8)
        assert await process.read_into(room.data) == room.size
        assert await process.read_into(room.data) == room.size // 2
        await process.finish()


@pytest.mark.parametrize(("help_text", "is_taken"), [("-vsync", False), ("-fps_mode[:<spec>]", True)])
def test_the_systems_ffmpeg_is_taken_where_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, help_text: str, is_taken: bool
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho '{help_text}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    ffmpeg.executable.cache_clear()
    try:
        assert (ffmpeg.executable() == str(program)) is is_taken
    finally:
        ffmpeg.executable.cache_clear()
