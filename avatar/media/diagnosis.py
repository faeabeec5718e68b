"""Find out whether ffmpeg fails because of the caller's file or because of the machine."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from ..errors import StorageFault
from ..faults import WORK_FOLDER_REMOVED, check_writable, storage_fault
from ..streams import cancel_and_wait
from .ffmpeg_errors import FfmpegError
from .self_test import SELF_TEST

T = TypeVar("T")

SUSPICION_SECONDS = 10.0  # work that takes longer starts a self-test: a file may need that long, or ffmpeg hangs
# Errors in writing a file, which ffmpeg 5.1 shows in its messages only (newer versions also in the exit status).
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)
# At the end of a line that is not indented, as the text of the file (its metadata) is.
_WRITE_ERROR = re.compile(
    "|".join(rf"^\S.*(?:: |\()({re.escape(os.strerror(number))})\)?$" for number in _WRITE_ERRORS), re.M
)


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


async def rule_out_machine(file: Path, error: FfmpegError | None = None, *, writes: bool = False) -> None:
    """Return if a failure of ffmpeg is due to the caller's `file`.

    Args:
        file: in the request's folder.
        error: None if ffmpeg reported success but its output is missing or unreadable.
        writes: whether ffmpeg was to write a file: its messages may then name an error of the disk.

    Raises:
        MachineFault: the work folder cannot be written, or ffmpeg fails on the built-in clip too.
    """
    await asyncio.to_thread(_check_storage, file, error if writes else None)
    await SELF_TEST.check(max_age=0)  # an earlier test says nothing about the machine at the time of the failure


def _check_storage(file: Path, error: FfmpegError | None) -> None:
    if not file.exists():
        raise StorageFault(WORK_FOLDER_REMOVED)
    check_writable(file.parent)
    if error and (found := _WRITE_ERROR.search(error.stderr_tail)):
        number = _WRITE_ERRORS[(found.lastindex or 1) - 1]
        raise storage_fault(OSError(number, os.strerror(number))) from error
