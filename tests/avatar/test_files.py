"""Files that are opened in a thread."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from avatar.files import opened
from tests.support.media import until


async def test_a_file_is_open_within_the_block_and_closed_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "file", "wb") as file:
        file.write(b"content")
    assert file.closed
    async with opened(tmp_path / "file", "rb") as file:
        assert file.read() == b"content"


async def test_a_file_that_is_missing_is_an_error_of_the_block(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with opened(tmp_path / "missing", "rb"):
            pass


async def test_a_file_is_closed_if_its_caller_is_cancelled_while_it_is_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it takes until the other side opens it

    async def hold() -> None:
        async with opened(pipe, "rb"):
            pass

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    writer = await asyncio.to_thread(pipe.open, "wb", buffering=0)
    await until(lambda: _nobody_reads(writer.fileno()))
    writer.close()


def _nobody_reads(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"x")
    except BrokenPipeError:
        return True
    return False
