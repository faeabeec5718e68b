"""Async generators that work ahead of their consumer and clean up after themselves.

Each stage is an async generator over the stage before it. Closing the last stage, or a failure in any stage, closes
all of them: no task outlives the generator that started it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def prefetch(source: AsyncGenerator[T], buffer_size: int) -> AsyncGenerator[T]:
    """Yield the items of `source`, produced by a separate task.

    Up to `buffer_size` finished items wait for the consumer while the task produces the next one.
    """
    async with aclosing(prefetch_ready(source, buffer_size, most=1)) as lists:
        async for (item,) in lists:
            yield item


async def prefetch_ready(
    source: AsyncGenerator[T], buffer_size: int, most: int | None = None
) -> AsyncGenerator[list[T]]:
    """Yield the items of `source` as `prefetch`, in lists: all that are finished, at least one and at most `most`."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue(buffer_size)
    task = asyncio.create_task(_fill(queue, source))
    ready: list[T] = []
    item: T | _End | None = None
    try:
        while not isinstance(item := await queue.get(), _End):
            ready.append(item)
            if queue.empty() or len(ready) == most:
                yield ready
                ready = []
        if ready:
            yield ready
        if item.error:
            raise item.error
    finally:
        # the error's traceback refers to this frame: the error here would make a cycle, the items would stay in memory
        item, ready = None, []
        await cancel_and_wait(task)


async def map_concurrent(
    source: AsyncGenerator[T], work: Callable[[T], Awaitable[U]], concurrency: int | Callable[[], int]
) -> AsyncGenerator[U]:
    """Yield `work(item)` for each item of `source`, in the order of the items.

    Up to `concurrency` items are in work, or finished and not yet taken by the consumer. A function is asked each time
    that an item would start; so the limit can follow the load of the machine.
    """
    limit: Callable[[], int] = concurrency if callable(concurrency) else lambda: concurrency
    running: set[asyncio.Task[U]] = set()
    taken = asyncio.Event()

    async def start() -> AsyncGenerator[asyncio.Task[U]]:
        async with aclosing(source):
            async for item in source:
                while len(running) >= limit():
                    taken.clear()
                    await taken.wait()
                task = asyncio.create_task(_run(work, item))
                running.add(task)
                del item
                yield task

    task: asyncio.Task[U] | None = None
    try:
        async with aclosing(prefetch(start(), 0)) as tasks:  # 0: the limit bounds them already
            async for task in tasks:
                result = await task
                running.discard(task)
                taken.set()
                yield result
    finally:
        await cancel_and_wait(*running)
        running.clear()
        task = None


class _End:
    """Mark the end of a stream; `error` is the failure that ended it, if any."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def _fill(queue: asyncio.Queue[T | _End], source: AsyncGenerator[T]) -> None:
    try:
        async with aclosing(source):
            async for item in source:
                await queue.put(item)
                del item  # or one more frame stays in memory while the next one is produced
    except Exception as error:
        await queue.put(_End(error))
    else:
        await queue.put(_End())


async def _run(work: Callable[[T], Awaitable[U]], item: T) -> U:
    return await work(item)


async def both(first: Coroutine[object, object, T], second: Coroutine[object, object, U]) -> tuple[T, U]:
    """Return the results of two coroutines that run at the same time.

    If `first` fails, `second` is cancelled. If `second` fails, its error is raised after the end of `first`, and only
    if that does not fail: so the error is the same as if they had run one after the other. Both have ended when this
    returns or raises.
    """
    one, other = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await one, await other
    finally:
        await cancel_and_wait(one, other)
        del one, other  # an error's traceback refers to this frame: holding the error here would make a cycle


def start_task(work: Coroutine[object, object, T], tasks: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Start a task that is in `tasks` until its end: so it can be cancelled, and is not garbage before."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def cancel_and_wait(*tasks: asyncio.Task[T]) -> None:
    """Cancel the tasks and wait for their end. Their results and errors are discarded."""
    running = []
    for task in tasks:
        if not task.done():
            task.cancel()
            running.append(task)
        elif not task.cancelled():
            task.exception()  # asyncio logs an error that nobody has asked for
    if running:
        await asyncio.gather(*running, return_exceptions=True)
