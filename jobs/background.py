"""Work that goes on beside a block of code, and ends with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)


@asynccontextmanager
async def background(work: Coroutine[object, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine within the block, and cancel it at the end. If it fails, that is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def run_unless(event: asyncio.Event, work: Coroutine[object, None, None]) -> None:
    """Run a coroutine, and cancel it as soon as the event is set. Raises what it raises."""
    task, stop = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("a task of the job queue ended with an error", exc_info=error)
