"""The limit of running jobs of an owner holds for claims too; and whatever frees a worker wakes another at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from jobs.database import Database
from jobs.records import Job, JobClass, JobError, JobState
from jobs.repository import end, leases, read, work
from jobs.repository.running import WAKE_CHANNEL, release_everywhere
from tests.jobs.test_quotas import LEASE, finish, limits, send

NOT_SOON = timedelta(hours=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=16) as database:
        yield database


async def claim(database: Database, lease: timedelta = LEASE) -> leases.Lease | None:
    return await leases.claim(database, uuid4(), lease, 3)


async def taken(database: Database) -> leases.Lease:
    lease = await claim(database)
    assert lease is not None
    return lease


async def queued(database: Database, tenant: str, running: int, number: int) -> list[Job]:
    """Submit jobs while none runs, as a caller does who fills its part of the queue."""
    return [await send(database, tenant, limits(running=running)) for _ in range(number)]


async def test_no_more_than_the_limit_run_and_the_next_starts_when_one_ends(database: Database) -> None:
    first, second, third, fourth = await queued(database, "a", 2, 4)
    running = [await taken(database), await taken(database)]
    assert [lease.job.id for lease in running] == [first.id, second.id]
    assert await claim(database) is None
    assert await work.claimable(database, LEASE, 10) == 0  # workers do not look in vain
    assert (await read.get(database, "a", third.id)).state is JobState.QUEUED
    await finish(database, running[1])
    assert (await taken(database)).job.id == third.id
    assert await claim(database) is None
    await leases.fail(database, running[0], JobError("x", "x", 400))
    assert (await taken(database)).job.id == fourth.id


async def test_jobs_of_others_pass(database: Database) -> None:
    await queued(database, "a", 1, 5)
    others = [await send(database, "b", limits(running=1)), await send(database, "")]
    claimed = [await taken(database) for _ in range(3)]
    assert {lease.job.id for lease in claimed[1:]} == {job.id for job in others}
    assert await claim(database) is None
    assert await read.place(database, await read.get(database, "", others[1].id)) is None


@pytest.mark.parametrize("way", ["canceled", "given back"])
async def test_whatever_ends_a_running_job_releases_the_next(database: Database, way: str) -> None:
    first, second, _ = await queued(database, "a", 1, 3)
    lease = await taken(database)
    assert await claim(database) is None
    if way == "canceled":
        await end.cancel(database, "a", first.id)
    else:
        await leases.give_back(database, lease, NOT_SOON, counts=False)
    assert (await taken(database)).job.id == second.id
    assert await claim(database) is None


async def test_a_worker_that_is_lost_keeps_the_place_of_its_job_until_that_fails(database: Database) -> None:
    first, second = await queued(database, "a", 1, 2)
    await taken(database)
    assert await claim(database) is None
    again = await claim(database, timedelta(0))  # as a lease that has expired
    assert again is not None
    assert (again.job.id, again.took_over) == (first.id, True)
    following = await leases.claim(database, uuid4(), timedelta(0), 2)
    assert following is not None
    assert following.job.id == second.id
    assert (await read.get(database, "a", first.id)).state is JobState.FAILED


async def test_a_held_job_can_be_canceled(database: Database) -> None:
    _, second, third = await queued(database, "a", 1, 3)
    lease = await taken(database)
    assert await claim(database) is None
    await end.cancel(database, "a", second.id)
    await finish(database, lease)
    assert (await taken(database)).job.id == third.id


async def test_an_interactive_job_passes_batch_jobs_that_are_held(database: Database) -> None:
    batch = [await send(database, "a", limits(running=1), job_class=JobClass.BATCH) for _ in range(4)]
    await taken(database)
    assert await claim(database) is None
    urgent = await send(database, "a", limits(running=2))
    lease = await taken(database)
    assert lease.job.id == urgent.id
    assert await claim(database) is None
    await finish(database, lease)
    assert (await taken(database)).job.id == batch[1].id


async def test_a_limit_that_grows_releases_jobs_and_one_that_shrinks_lets_running_ones_end(database: Database) -> None:
    await queued(database, "a", 1, 4)
    held = [await taken(database)]
    assert await claim(database) is None
    await send(database, "a", limits(running=3))
    held += [await taken(database), await taken(database)]
    assert await claim(database) is None
    await database.fetch("UPDATE running_limits SET running = 1 RETURNING 1")
    for lease in held[:2]:
        await finish(database, lease)
        assert await claim(database) is None
    await finish(database, held[2])
    assert await claim(database) is not None


async def test_the_sweep_releases_what_a_failed_transaction_left(database: Database) -> None:
    await queued(database, "a", 1, 2)
    lease = await taken(database)
    assert await claim(database) is None
    await finish(database, lease)
    await database.fetch("UPDATE pgqueuer SET execute_after = '9999-01-01' RETURNING 1")
    await database.fetch("UPDATE jobs SET held = true WHERE state = 'queued' RETURNING 1")
    assert await claim(database) is None
    await release_everywhere(database)
    assert await claim(database) is not None


async def test_many_workers_at_once_do_not_get_past_the_limit(database: Database) -> None:
    """They claim and end jobs of two owners with the limits 1 and 3, as fast as they can."""
    allowed = {"a": 1, "b": 3}
    for tenant, running in allowed.items():
        await queued(database, tenant, running, 20)
    done: list[str] = []
    over: list[str] = []
    under_way = dict.fromkeys(allowed, 0)

    async def worker() -> None:
        while len(done) < 40:
            lease = await claim(database)
            if lease is None:
                await asyncio.sleep(0.005)
                continue
            tenant = lease.job.tenant
            under_way[tenant] += 1
            if under_way[tenant] > allowed[tenant]:
                over.append(tenant)
            await asyncio.sleep(0.002)
            under_way[tenant] -= 1
            await finish(database, lease)
            done.append(tenant)

    async with asyncio.timeout(60):
        await asyncio.gather(*(worker() for _ in range(8)))
    assert over == []
    assert sorted(done) == ["a"] * 20 + ["b"] * 20


async def test_what_can_run_again_is_notified(database: Database) -> None:
    woken = asyncio.Event()
    database.listen(WAKE_CHANNEL, lambda _: woken.set())
    await asyncio.wait_for(database.connected.wait(), 30)
    await queued(database, "a", 1, 2)
    lease = await taken(database)
    assert await claim(database) is None
    assert not woken.is_set()
    await leases.give_back(database, lease, timedelta(0), counts=False)
    await asyncio.wait_for(woken.wait(), 30)
    again = await taken(database)
    assert await claim(database) is None
    woken.clear()
    await finish(database, again)
    await asyncio.wait_for(woken.wait(), 30)
