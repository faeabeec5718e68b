"""Work that ends with the client's interest in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from avatar.errors import ShuttingDown

from .errors import ClientGone

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


async def attended(work: Coroutine[Any, Any, Result], stopped: asyncio.Event, receive: Receive | None = None) -> Result:
    """The result of `work`.

    It is cancelled, and has ended when this returns, when `stopped` is set (ShuttingDown), when the client
    disconnects (ClientGone), or when the caller is cancelled. Give `receive` once the body has been read:
    until then it is the reader who learns that the client is gone.
    """
    job = asyncio.create_task(work)
    stop = asyncio.create_task(stopped.wait())
    watchers: list[asyncio.Task[Any]] = [stop]
    if receive is not None:
        watchers.append(asyncio.create_task(_disconnected(receive)))
    try:
        await asyncio.wait((job, *watchers), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ShuttingDown("the service is being stopped") if stop.done() else ClientGone
    finally:
        await _end(*watchers)
        if not job.done():
            for problem in await _end(job):
                logger.error("the cancelled job did not end cleanly", exc_info=problem)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Task[Any]) -> list[Exception]:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [result for result in results if isinstance(result, Exception)]
