"""Find out whether ffmpeg fails because of the caller's file or because of the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import StorageFault
from ..faults import WORK_FOLDER_REMOVED, check_writable
from ..streams import cancel_and_wait
from . import ffmpeg
from .self_test import SELF_TEST

T = TypeVar("T")

SUSPICION_SECONDS = 10.0  # work that takes longer starts a self-test: a file may need that long, or ffmpeg hangs


async def watched(work: Coroutine[object, object, T]) -> T:
    """Return the result of `work`, which waits for ffmpeg; test ffmpeg if that takes longer than SUSPICION_SECONDS.

    Raises:
        MachineFault: the test failed; `work` is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait((task,), timeout=SUSPICION_SECONDS)
        if not done:
            await SELF_TEST.check(max_age=SUSPICION_SECONDS)
        return await task
    finally:
        await cancel_and_wait(task)


async def rule_out_machine(file: Path) -> None:
    """Return if a failure of ffmpeg, or an output that is missing or unreadable, is due to the caller's `file`.

    Raises:
        MachineFault: the work folder of the file cannot be written, or ffmpeg fails on the built-in clip too.
    """
    await asyncio.to_thread(_check_storage, file)
    await SELF_TEST.check(max_age=0)  # an earlier test says nothing about the machine at the time of the failure


async def run_on(file: Path, args: Sequence[str]) -> tuple[bytes, str]:
    """Run ffmpeg on the caller's `file` with these arguments, watched; return its stdout and stderr.

    Raises:
        FfmpegError: ffmpeg failed because of the file.
        MachineFault: ffmpeg failed because of the machine.
    """
    try:
        return await watched(ffmpeg.run(args))
    except ffmpeg.FfmpegError:
        await rule_out_machine(file)
        raise


def _check_storage(file: Path) -> None:
    if not file.exists():
        raise StorageFault(WORK_FOLDER_REMOVED)
    check_writable(file.parent)
