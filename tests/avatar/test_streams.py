import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from avatar.streams import both, map_concurrent, prefetch, prefetch_ready
from avatar.timing import StageTimer
from tests.support.media import other_tasks


class Numbers:
    """A source that records how far it was read and whether it was closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.yielded, self.closed = count, error, 0, False

    async def __call__(self) -> AsyncGenerator[int]:
        try:
            for n in range(self.count):
                self.yielded = n + 1
                yield n
                await asyncio.sleep(0)
            if self.error:
                raise self.error
        finally:
            self.closed = True


async def settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def double(n: int) -> int:
    await asyncio.sleep(0.001 * (n % 3))
    return 2 * n


async def test_prefetch_yields_the_same_items() -> None:
    assert [n async for n in prefetch(Numbers(20)(), 3)] == list(range(20))


async def test_prefetch_reads_only_as_far_ahead_as_its_buffer() -> None:
    source = Numbers(100)
    async with aclosing(prefetch(source(), 3)) as stream:
        assert await anext(stream) == 0
        await settle()
        assert source.yielded == 5  # one consumed, three in the buffer, one waiting for the buffer


async def test_a_consumer_that_was_busy_gets_all_that_is_finished_at_once() -> None:
    source = Numbers(10)
    async with aclosing(prefetch_ready(source(), 3)) as stream:
        lists = [await anext(stream)]
        while sum(map(len, lists)) < 10:
            await settle()
            lists.append(await anext(stream))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert lists == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]


async def test_an_error_comes_after_the_items_that_were_finished_with_it() -> None:
    stream, seen = prefetch_ready(Numbers(5, ValueError("broken"))(), 10), []
    assert await anext(stream) == [0]
    await settle()
    with pytest.raises(ValueError, match="broken"):
        async for items in stream:
            seen += items
    assert seen == [1, 2, 3, 4]
    assert not other_tasks()


async def test_an_error_comes_after_the_items_before_it() -> None:
    seen = []
    with pytest.raises(ValueError, match="broken"):
        async for n in prefetch(Numbers(4, ValueError("broken"))(), 2):
            seen.append(n)
    assert seen == [0, 1, 2, 3]


async def test_closing_a_stream_early_closes_its_source_and_leaves_no_task() -> None:
    source = Numbers(100)
    async with aclosing(map_concurrent(prefetch(source(), 2), double, 3)) as stream:
        await anext(stream)
    assert source.closed
    assert not other_tasks()


async def test_results_of_concurrent_work_keep_their_order() -> None:
    assert [n async for n in map_concurrent(Numbers(20)(), double, 4)] == [2 * n for n in range(20)]


async def test_at_most_the_allowed_number_of_items_are_in_work() -> None:
    running = maximum = 0

    async def work(n: int) -> int:
        nonlocal running, maximum
        running += 1
        maximum = max(maximum, running)
        await asyncio.sleep(0.001)
        running -= 1
        return n

    assert len([n async for n in map_concurrent(Numbers(20)(), work, 3)]) == 20
    assert maximum == 3


async def test_a_limit_that_falls_while_the_work_runs_lets_fewer_items_start() -> None:
    limit, running, seen = 3, 0, []

    async def work(n: int) -> int:
        nonlocal running
        running += 1
        seen.append(running)
        await asyncio.sleep(0.001)
        running -= 1
        return n

    async with aclosing(map_concurrent(Numbers(40)(), work, lambda: limit)) as stream:
        async for n in stream:
            if n == 20:
                limit = 1
                seen.clear()
    assert max(seen[3:]) == 1  # the first ones may have started before the limit fell


async def test_a_result_does_not_wait_for_the_next_item() -> None:
    never = asyncio.Event()

    async def one_and_no_more() -> AsyncGenerator[int]:
        yield 21
        await never.wait()

    async with aclosing(map_concurrent(one_and_no_more(), double, 4)) as stream:
        assert await asyncio.wait_for(anext(stream), 10) == 42


async def test_a_failure_ends_the_stream_and_the_concurrent_work() -> None:
    cancelled = []

    async def work(n: int) -> int:
        if n == 1:
            raise ValueError("broken")
        try:
            await asyncio.sleep(60 if n else 0)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        return n

    source = Numbers(10)
    stream = map_concurrent(source(), work, 3)
    assert await anext(stream) == 0
    with pytest.raises(ValueError, match="broken"):
        await anext(stream)
    assert cancelled
    assert source.closed
    assert not other_tasks()


async def test_cancelling_the_consumer_closes_every_stage() -> None:
    source, never = Numbers(100), asyncio.Event()

    async def hang(n: int) -> int:
        await never.wait()
        return n

    async def consume() -> None:
        async for _ in prefetch(map_concurrent(prefetch(source(), 2), hang, 2), 2):
            pass

    task = asyncio.create_task(consume())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert source.closed
    assert not other_tasks()


async def test_overlapping_calls_of_a_stage_count_once() -> None:
    timer = StageTimer()
    start = time.monotonic()
    with timer.stage("first"), timer.stage("second"), timer.stage("second"):
        await asyncio.sleep(0.02)
    whole = time.monotonic() - start
    assert list(timer.seconds) == ["first", "second"]
    assert 0 < timer.seconds["second"] <= timer.seconds["first"] <= whole


async def fail_after(seconds: float, message: str) -> int:
    await asyncio.sleep(seconds)
    raise ValueError(message)


async def test_two_coroutines_run_at_the_same_time() -> None:
    arrived = asyncio.Event()

    async def first() -> str:
        await arrived.wait()
        return "one"

    async def second() -> str:
        arrived.set()
        return "other"

    assert await both(first(), second()) == ("one", "other")
    assert not other_tasks()


@pytest.mark.parametrize(("first", "second"), [(0, 0.02), (0.02, 0)])
async def test_of_two_that_fail_the_error_is_that_of_the_first_whichever_was_earlier(
    first: float, second: float
) -> None:
    with pytest.raises(ValueError, match="one"):
        await both(fail_after(first, "one"), fail_after(second, "other"))
    assert not other_tasks()


async def test_the_error_of_the_second_is_raised_once_the_first_has_succeeded() -> None:
    with pytest.raises(ValueError, match="other"):
        await both(double(1), fail_after(0, "other"))
    assert not other_tasks()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_neither_of_two_is_left_when_the_first_fails_or_both_are_cancelled(cancelled: bool) -> None:
    ended = []

    async def endless(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # it is waited for
            ended.append(name)

    task = asyncio.create_task(both(endless("one") if cancelled else fail_after(0.01, "one"), endless("other")))
    await settle()
    if cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else ValueError):
        await task
    assert ended == (["one", "other"] if cancelled else ["other"])
    assert not other_tasks()
