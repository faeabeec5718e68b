"""Streams that run ahead of their consumer, and clean up after themselves.

Every stage is an async generator over the stage before it. Closing the last one, or a failure in any, closes
them all: no task outlives the generator that started it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def ahead(source: AsyncGenerator[T], room: int) -> AsyncGenerator[T]:
    """The same items, made by a task of their own: up to `room` wait here, and one more is in the making."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue(room)
    task = asyncio.create_task(_fill(queue, source))
    item: T | _End | None = None
    try:
        while not isinstance(item := await queue.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        item = None  # an error's traceback leads here, and would keep itself
        await stop(task)


async def together(source: AsyncGenerator[T], work: Callable[[T], Awaitable[U]], at_once: int) -> AsyncGenerator[U]:
    """`work` done on every item ahead of the consumer; results in the items' order, each as soon as it can be.

    At most `at_once` items are being worked on or wait, done, to be taken.
    """
    places = asyncio.Semaphore(at_once)
    running: set[asyncio.Task[U]] = set()

    async def begun() -> AsyncGenerator[asyncio.Task[U]]:
        async with aclosing(source):
            async for item in source:
                await places.acquire()
                task = asyncio.create_task(_run(work, item))
                running.add(task)
                yield task

    task: asyncio.Task[U] | None = None
    try:
        async with aclosing(ahead(begun(), at_once)) as tasks:
            async for task in tasks:
                result = await task
                running.discard(task)
                places.release()
                yield result
    finally:
        await stop(*running)
        running.clear()
        task = None


class StageTimer:
    """How long each stage had work under way, waiting for its turn included; a stage's calls may overlap."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._under_way: dict[str, int] = {}
        self._since: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of each stage so far, in the order in which the stages began."""
        return dict(self._seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block as work of stage `name`."""
        self._seconds.setdefault(name, 0.0)
        if not self._under_way.get(name):
            self._since[name] = time.monotonic()
        self._under_way[name] = self._under_way.get(name, 0) + 1
        try:
            yield
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                self._seconds[name] += time.monotonic() - self._since[name]


class _End:
    """Follows the last item of a stream, with the error that ended it, if one did."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


async def _fill(queue: asyncio.Queue[T | _End], source: AsyncGenerator[T]) -> None:
    try:
        async with aclosing(source):
            async for item in source:
                await queue.put(item)
                del item  # a frame that waits for its successor would count twice
    except Exception as error:
        await queue.put(_End(error))
    else:
        await queue.put(_End())


async def _run(work: Callable[[T], Awaitable[U]], item: T) -> U:
    return await work(item)


async def stop(*tasks: asyncio.Task[T]) -> None:
    """Cancel and wait; what they were doing is not wanted any more, nor its errors."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
