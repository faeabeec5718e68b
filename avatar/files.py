"""Open files without blocking the event loop, and close them whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from .faults import storage_fault


@asynccontextmanager
async def opened(path: Path, mode: Literal["rb", "wb"]) -> AsyncIterator[BinaryIO]:
    """Open a file in a thread and close it after the block.

    Unlike `with await asyncio.to_thread(path.open)`, this closes the file even where the caller is cancelled while the
    thread opens it. Raises OSError.
    """
    opening = asyncio.create_task(asyncio.to_thread(path.open, mode))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    try:
        yield file
    finally:
        await asyncio.to_thread(file.close)


@asynccontextmanager
async def opened_for_work(path: Path, mode: Literal["rb", "wb"]) -> AsyncIterator[BinaryIO]:
    """As `opened`, in the work folder: a file that cannot be opened there is a fault. Raises MachineFault."""
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(opened(path, mode))
        except OSError as error:
            raise storage_fault(error) from error
        yield file


def _close(opening: asyncio.Task[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
