"""Shared memory, as both implementations have to provide it: the client's for threads, the service's for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from avatar.inference import shared_memory as for_asyncio
from avatar_client import _shared_memory as for_threads
from avatar_client.region_file import FOLDER, boot_seconds, make_file
from avatar_client.region_pool import REFUSAL_DELAY, REGION_TTL, RETRY_DELAY, Region, size_class
from tests.support.region_registry import AsyncFakeRegistry, FakeClock, FakeRegistry

MIB = 1 << 20


class Pool(Protocol):
    """Both implementations, as the tests call them."""

    prefix: str

    async def acquire(self, size: int) -> Region | None: ...
    async def release(self, region: Region) -> None: ...
    async def discard(self, region: Region) -> None: ...
    async def invalidate(self) -> None: ...
    async def close(self) -> None: ...


class AsyncioPool:
    prefix = for_asyncio.PREFIX

    def __init__(self, registry: FakeRegistry, max_bytes: int, clock: FakeClock) -> None:
        self._pool = for_asyncio.SharedMemoryPool(AsyncFakeRegistry(registry), 60, max_bytes, clock)

    async def acquire(self, size: int) -> Region | None:
        return await self._pool.acquire(size)

    async def release(self, region: Region) -> None:
        self._pool.release(region)

    async def discard(self, region: Region) -> None:
        self._pool.discard(region)

    async def invalidate(self) -> None:
        self._pool.invalidate()

    async def close(self) -> None:
        await self._pool.close()


class ThreadPool:
    prefix = for_threads.PREFIX

    def __init__(self, registry: FakeRegistry, max_bytes: int, clock: FakeClock) -> None:
        self._pool = for_threads.SharedMemoryPool(registry, max_bytes, clock)

    async def acquire(self, size: int) -> Region | None:
        return await asyncio.to_thread(self._pool.acquire, size)

    async def release(self, region: Region) -> None:
        await asyncio.to_thread(self._pool.release, region)

    async def discard(self, region: Region) -> None:
        await asyncio.to_thread(self._pool.discard, region)

    async def invalidate(self) -> None:
        await asyncio.to_thread(self._pool.invalidate)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[AsyncioPool, ThreadPool], ids=["asyncio", "threads"])
async def pool(request: pytest.FixtureRequest, registry: FakeRegistry, clock: FakeClock) -> AsyncIterator[Pool]:
    made: Pool = request.param(registry, 8 * MIB, clock)
    yield made
    registry.in_use.clear()
    await made.close()
    assert not registry.regions


async def until(done: Callable[[], Awaitable[object]]) -> None:
    """Wait for what a task or a later call does."""
    async with asyncio.timeout(60):
        while not await done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_unregistered(registry: FakeRegistry, name: str) -> None:
    async def is_unregistered() -> bool:
        return name not in registry.regions

    await until(is_unregistered)


async def acquired(pool: Pool, size: int) -> Region:
    region = await pool.acquire(size)
    assert region is not None
    return region


async def test_a_released_region_serves_the_next_call(pool: Pool, registry: FakeRegistry) -> None:
    first = await acquired(pool, 2 * MIB)
    await pool.release(first)
    assert await pool.acquire(MIB) is first
    assert registry.registrations == 1


async def test_a_region_serves_one_call_at_a_time(pool: Pool) -> None:
    regions = [await acquired(pool, MIB) for _ in range(3)]
    assert len({region.name for region in regions}) == 3
    for n, region in enumerate(regions):
        region.memory[:] = n
    assert [set(region.memory.tolist()) for region in regions] == [{0}, {1}, {2}]


async def test_a_region_has_its_own_name_and_no_file_while_it_is_used(pool: Pool) -> None:
    region = await acquired(pool, MIB)
    assert region.name.startswith(pool.prefix)
    assert not (FOLDER / region.name).exists()


def test_the_names_of_both_differ() -> None:
    assert not for_asyncio.PREFIX.startswith(for_threads.PREFIX)
    assert not for_threads.PREFIX.startswith(for_asyncio.PREFIX)


async def test_a_call_beyond_the_limit_does_without(pool: Pool) -> None:
    assert await pool.acquire(6 * MIB)
    assert await pool.acquire(6 * MIB) is None
    assert await pool.acquire(9 * MIB) is None
    assert await pool.acquire(MIB)


async def test_too_small_regions_make_room_for_a_larger_one(pool: Pool) -> None:
    for region in [await acquired(pool, 2 * MIB) for _ in range(4)]:
        await pool.release(region)
    await until(lambda: pool.acquire(7 * MIB))


async def test_discarded_memory_is_not_used_again_while_the_server_uses_it(pool: Pool, registry: FakeRegistry) -> None:
    cancelled = await acquired(pool, 6 * MIB)
    registry.in_use.add(cancelled.name)
    await pool.discard(cancelled)
    for _ in range(10):
        assert await pool.acquire(6 * MIB) is None  # it counts against the limit
        await asyncio.sleep(0.01)
    registry.in_use.clear()
    replaced: list[Region] = []

    async def is_replaced() -> bool:
        replaced.extend(filter(None, [await pool.acquire(6 * MIB)]))
        return bool(replaced)

    await until(is_replaced)
    assert replaced[0].name != cancelled.name
    assert cancelled.name not in registry.regions


async def test_a_server_that_rejects_is_asked_again_after_a_minute(
    pool: Pool, registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.response = False
    assert await pool.acquire(MIB) is None
    registry.response = True
    clock.now += REFUSAL_DELAY - 1
    assert await pool.acquire(MIB) is None
    assert registry.registrations == 1
    clock.now += 2
    assert await pool.acquire(MIB)


async def test_a_server_that_forgets_twice_within_a_minute_counts_as_one_that_rejects(
    pool: Pool, registry: FakeRegistry, clock: FakeClock
) -> None:
    region = await acquired(pool, MIB)
    await pool.release(region)
    await pool.invalidate()
    assert await pool.acquire(MIB) is None
    clock.now += RETRY_DELAY + 0.1
    another = await acquired(pool, MIB)
    assert another is not region
    await until_unregistered(registry, region.name)
    await pool.discard(another)
    await pool.invalidate()
    clock.now += RETRY_DELAY + 0.1
    assert await pool.acquire(MIB) is None
    clock.now += REFUSAL_DELAY
    assert await pool.acquire(MIB)


async def test_a_registration_without_an_answer_is_undone(pool: Pool, registry: FakeRegistry, clock: FakeClock) -> None:
    registry.response = None
    assert await pool.acquire(MIB) is None
    (name,) = registry.all_names
    await until_unregistered(registry, name)
    registry.response = True
    clock.now += RETRY_DELAY + 0.1
    assert await pool.acquire(MIB)


async def test_a_region_is_replaced_when_its_time_is_over(pool: Pool, registry: FakeRegistry, clock: FakeClock) -> None:
    region = await acquired(pool, MIB)
    await pool.release(region)
    clock.now += REGION_TTL + 1
    assert await pool.acquire(MIB) is not region
    await until_unregistered(registry, region.name)


async def test_what_killed_processes_left_is_removed_when_its_time_is_over(pool: Pool, registry: FakeRegistry) -> None:
    end = int(boot_seconds()) + 1000
    expired, current = f"{pool.prefix}1-test-{id(registry)}", f"{pool.prefix}{end}-test-{id(registry)}"
    others = {"of-another-program", current}
    registry.regions |= {expired, *others}
    for name in (expired, current):
        (FOLDER / name).touch()
    try:
        assert await pool.acquire(MIB)
        await until_unregistered(registry, expired)
        await until(lambda: asyncio.to_thread(lambda: not (FOLDER / expired).exists()))
        assert others <= registry.regions
        assert (FOLDER / current).exists()
    finally:
        registry.regions -= others
        for name in (expired, current):
            (FOLDER / name).unlink(missing_ok=True)


async def test_closing_unregisters_all_regions_also_those_in_use(pool: Pool, registry: FakeRegistry) -> None:
    released, discarded, _ = [await acquired(pool, MIB) for _ in range(3)]
    await pool.release(released)
    registry.in_use.add(discarded.name)
    await pool.discard(discarded)
    asyncio.get_running_loop().call_later(0.2, registry.in_use.clear)
    await pool.close()
    assert not registry.regions
    assert await pool.acquire(MIB) is None


def test_a_file_that_does_not_fit_is_not_made() -> None:
    name = f"{for_threads.PREFIX}{int(boot_seconds())}-too-large"
    with pytest.raises(OSError, match="small or full"):
        make_file(name, 1 << 45)
    assert not (FOLDER / name).exists()


@pytest.mark.parametrize("size", [1, 64 << 10, MIB, MIB + 1, 8_122_368, 100 * MIB - 1])
def test_a_size_class_holds_its_sizes_without_much_waste(size: int) -> None:
    assert size <= size_class(size) <= max(size * 1.25, 1 << 18)
    assert size_class(size_class(size)) == size_class(size)
