"""The behavior of both pools of shared memory: the client's for threads and the service's for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from avatar.inference import shared_memory as for_asyncio
from avatar_client import _shared_memory as for_threads
from avatar_client.region_file import FOLDER, boot_seconds, make_file
from avatar_client.region_pool import REFUSAL_DELAY, REGION_TTL, RETRY_DELAY, Region, Registration, size_class
from tests.support.region_registry import AsyncFakeRegistry, FakeClock, FakeRegistry

MIB = 1 << 20


class Pool(Protocol):
    """The interface through which the tests call both implementations."""

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
    pool: Pool = request.param(registry, 8 * MIB, clock)
    yield pool
    registry.in_use.clear()
    await pool.close()
    assert not registry.regions


async def until(done: Callable[[], Awaitable[object]]) -> None:
    """Poll until `done` is true: a task or a later call changes it."""
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


async def test_a_released_region_is_used_by_the_next_call(pool: Pool, registry: FakeRegistry) -> None:
    first = await acquired(pool, 2 * MIB)
    await pool.release(first)
    assert await pool.acquire(MIB) is first
    assert registry.registrations == 1


async def test_a_region_is_used_by_one_call_at_a_time(pool: Pool) -> None:
    regions = [await acquired(pool, MIB) for _ in range(3)]
    assert len({region.name for region in regions}) == 3
    for n, region in enumerate(regions):
        region.memory[:] = n
    assert [set(region.memory.tolist()) for region in regions] == [{0}, {1}, {2}]


async def test_a_region_has_no_file_while_it_is_used(pool: Pool, registry: FakeRegistry) -> None:
    region = await acquired(pool, MIB)
    (file,) = registry.files
    assert region.name.startswith(pool.prefix)
    assert file.startswith(pool.prefix)
    assert not {region.name, file} & {path.name for path in FOLDER.iterdir()}


async def test_the_name_of_a_file_does_not_tell_the_name_of_its_region(pool: Pool, registry: FakeRegistry) -> None:
    names = [(await acquired(pool, MIB)).name for _ in range(3)]
    secrets = [name.rpartition("-")[2] for name in (*names, *registry.files)]
    assert len(set(secrets)) == 6
    assert all(len(secret) == 32 for secret in secrets)


@pytest.mark.parametrize(
    ("response", "level", "reason"),
    [
        (Registration.INVISIBLE, "INFO", "does not see this process's memory"),
        (Registration.RESTRICTED, "INFO", "set AVATAR_TRITON_TOKEN or AVATAR_TRITON_TOKEN_FILE"),
        (Registration.DENIED, "WARNING", "does not accept the token"),
        (Registration.DISABLED, "WARNING", "add --allow-client-shm=true"),
    ],
)
async def test_why_there_is_no_shared_memory_is_logged_once(
    pool: Pool,
    registry: FakeRegistry,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    response: Registration,
    level: str,
    reason: str,
) -> None:
    caplog.set_level("INFO")
    registry.response = response
    for _ in range(3):
        assert await pool.acquire(MIB) is None
        clock.now += REFUSAL_DELAY + 1
    assert registry.registrations == 3
    (record,) = caplog.records
    assert (record.levelname, reason in record.message) == (level, True)


@pytest.mark.parametrize(
    ("status", "message", "with_token", "meaning"),
    [
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", False, Registration.RESTRICTED),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", True, Registration.DENIED),
        ("UNAVAILABLE", "failed to connect to all addresses", True, Registration.UNANSWERED),
        ("DEADLINE_EXCEEDED", "", True, Registration.UNANSWERED),
        ("UNIMPLEMENTED", "Client shared memory is disabled.", True, Registration.DISABLED),
        ("INTERNAL", "Unable to open shared memory region: '/x'", True, Registration.INVISIBLE),
    ],
)
def test_the_error_of_a_registration_says_why(
    status: str, message: str, with_token: bool, meaning: Registration
) -> None:
    assert Registration.of_error(status, message, with_token=with_token) is meaning


def test_the_names_of_both_pools_differ() -> None:
    assert not for_asyncio.PREFIX.startswith(for_threads.PREFIX)
    assert not for_threads.PREFIX.startswith(for_asyncio.PREFIX)


async def test_a_call_over_the_limit_gets_no_region(pool: Pool) -> None:
    assert await pool.acquire(6 * MIB)
    assert await pool.acquire(6 * MIB) is None
    assert await pool.acquire(9 * MIB) is None
    assert await pool.acquire(MIB)


async def test_regions_that_are_too_small_are_replaced_by_a_larger_one(pool: Pool) -> None:
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


async def test_after_a_rejection_the_next_registration_is_tried_a_minute_later(
    pool: Pool, registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.response = Registration.INVISIBLE
    assert await pool.acquire(MIB) is None
    registry.response = Registration.MAPPED
    clock.now += REFUSAL_DELAY - 1
    assert await pool.acquire(MIB) is None
    assert registry.registrations == 1
    clock.now += 2
    assert await pool.acquire(MIB)


async def test_a_server_that_loses_its_regions_twice_within_a_minute_counts_as_rejecting(
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


async def test_a_registration_without_a_response_is_undone(
    pool: Pool, registry: FakeRegistry, clock: FakeClock
) -> None:
    registry.response = Registration.UNANSWERED
    assert await pool.acquire(MIB) is None
    (name,) = registry.all_names
    await until_unregistered(registry, name)
    registry.response = Registration.MAPPED
    clock.now += RETRY_DELAY + 0.1
    assert await pool.acquire(MIB)


async def test_an_expired_region_is_replaced(pool: Pool, registry: FakeRegistry, clock: FakeClock) -> None:
    region = await acquired(pool, MIB)
    await pool.release(region)
    clock.now += REGION_TTL + 1
    assert await pool.acquire(MIB) is not region
    await until_unregistered(registry, region.name)


async def test_expired_regions_of_killed_processes_are_removed(pool: Pool, registry: FakeRegistry) -> None:
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


async def test_closing_unregisters_all_regions_including_those_in_use(pool: Pool, registry: FakeRegistry) -> None:
    released, discarded, _ = [await acquired(pool, MIB) for _ in range(3)]
    await pool.release(released)
    registry.in_use.add(discarded.name)
    await pool.discard(discarded)
    asyncio.get_running_loop().call_later(0.2, registry.in_use.clear)
    await pool.close()
    assert not registry.regions
    assert await pool.acquire(MIB) is None


def test_a_file_larger_than_the_file_system_is_not_created() -> None:
    name = f"{for_threads.PREFIX}{int(boot_seconds())}-too-large"
    with pytest.raises(OSError, match="small or full"):
        make_file(name, 1 << 45)
    assert not (FOLDER / name).exists()


@pytest.mark.parametrize("size", [1, 64 << 10, MIB, MIB + 1, 8_122_368, 100 * MIB - 1])
def test_a_size_class_is_at_least_its_size_and_not_much_larger(size: int) -> None:
    assert size <= size_class(size) <= max(size * 1.25, 1 << 18)
    assert size_class(size_class(size)) == size_class(size)
