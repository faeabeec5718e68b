"""Many jobs in one process: their number, and the memory that they may take together."""

import asyncio
from pathlib import Path

import pytest

from avatar.load import Load, MemoryBudget, usable_memory


def test_a_job_takes_an_equal_share_of_the_machine() -> None:
    load = Load()
    assert load.share(8) == 8
    with load.job(), load.job():
        assert (load.jobs, load.share(8), load.share(1)) == (2, 4, 1)
    assert (load.jobs, load.share(8)) == (0, 8)


async def test_a_job_waits_until_its_memory_is_free() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(60) as first, budget.reserve(60) as second:
        assert first.is_set()
        assert not second.is_set()
        assert (budget.free, budget.queued) == (40, 1)
    assert (budget.free, budget.queued) == (100, 0)


async def test_a_small_job_does_not_overtake_a_large_one() -> None:
    budget, order = MemoryBudget(100), []

    async def job(size: int) -> None:
        with budget.reserve(size) as turn:
            await turn.wait()
            order.append(size)
            await asyncio.sleep(0)

    await asyncio.gather(*(job(size) for size in (60, 70, 10, 90, 20)))
    assert order == [60, 70, 10, 90, 20]
    assert budget.free == 100


async def test_a_job_that_needs_more_than_all_memory_runs_alone() -> None:
    budget = MemoryBudget(100)
    with budget.reserve(1) as small, budget.reserve(1000) as large:
        assert small.is_set()
        assert not large.is_set()
    with budget.reserve(1000) as large, budget.reserve(1) as small:
        assert large.is_set()
        assert not small.is_set()
    assert budget.free == 100


async def test_a_job_that_is_cancelled_while_it_waits_leaves_its_place_to_the_next() -> None:
    budget = MemoryBudget(100)

    async def job(size: int) -> None:
        with budget.reserve(size) as turn:
            await turn.wait()

    with budget.reserve(60):
        large = asyncio.create_task(job(90))
        small = asyncio.create_task(job(40))
        await asyncio.sleep(0)
        assert budget.queued == 2
        large.cancel()
        await asyncio.wait_for(small, 10)
    assert large.cancelled()
    assert (budget.free, budget.queued) == (100, 0)


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"memory.max": "1048576\n"}, 1 << 20),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "2097152\n"}, 2 << 20),
        ({}, None),
    ],
)
def test_a_container_has_the_memory_of_its_limit(tmp_path: Path, files: dict[str, str], most: int | None) -> None:
    machine = usable_memory(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_memory(tmp_path) == (machine if most is None else most)
