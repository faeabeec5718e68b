"""Cancel the work of a request when its client disconnects or the service stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive

from avatar.errors import ShuttingDown

from .errors import ClientDisconnected

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


async def run_until_disconnect(
    work: Coroutine[object, None, Result], stopped: asyncio.Event, receive: Receive | None = None
) -> Result:
    """Return the result of `work`, or cancel it and wait for its end.

    Args:
        work: the coroutine to run.
        stopped: when it is set, the work is cancelled.
        receive: the request's ASGI channel; left out while the body is still read, because then the reader of the
            body notices that the client disconnected.

    Raises:
        ShuttingDown: `stopped` was set.
        ClientDisconnected: the client closed its connection.
    """
    job = asyncio.create_task(work)
    stop = asyncio.create_task(stopped.wait())
    watchers: list[asyncio.Task[object]] = [stop]
    if receive is not None:
        watchers.append(asyncio.create_task(_wait_for_disconnect(receive)))
    try:
        await asyncio.wait((job, *watchers), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ShuttingDown() if stop.done() else ClientDisconnected
    finally:
        await _cancel_and_wait(*watchers)
        if not job.done():
            for error in await _cancel_and_wait(job):
                logger.error("the cancelled job did not end cleanly", exc_info=error)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel_and_wait(*tasks: asyncio.Task[object]) -> list[Exception]:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]
