"""Limits per API key, by the real database; and that a tenant that floods does not let another one wait."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from jobs.database import Database
from jobs.keys import KeyLimits
from jobs.quotas import QuotaExceeded, UploadRates, check_quotas, check_stored
from jobs.records import Job, JobClass, JobResult, StoredFile, Submission
from jobs.repository import leases, read
from jobs.repository.submit import submit

HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=20)
NO_LIMITS = KeyLimits(10**6, 10**6, 10**6, 10**12)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=16) as database:
        yield database


def limits(**changes: int) -> KeyLimits:
    return KeyLimits(**{**vars(NO_LIMITS), **changes})


async def send(database: Database, tenant: str, allowed: KeyLimits | None = None, size: int = 0, **more: Any) -> Job:
    inputs = {"face_file": StoredFile("inputs/x/face_file", size, "0")}
    job, _ = await submit(database, Submission(uuid4(), {}, "0", tenant, inputs=inputs, **more), HOUR, limits=allowed)
    return job


async def take(database: Database) -> leases.Lease:
    lease = await leases.claim(database, uuid4(), LEASE, 3)
    assert lease is not None
    return lease


async def finish(database: Database, lease: leases.Lease, size: int = 0) -> None:
    await leases.succeed(database, lease, JobResult(StoredFile("results/x", size, "0"), "mp4", 1, 25.0, 0.04, 0), HOUR)


async def test_queued_jobs_of_both_priorities_are_limited_and_of_another_tenant_are_not(database: Database) -> None:
    await send(database, "a", limits(queued=2))
    await send(database, "a", limits(queued=2), job_class=JobClass.BATCH)
    with pytest.raises(QuotaExceeded, match="limit of 2 queued jobs") as caught:
        await send(database, "a", limits(queued=2))
    assert (caught.value.code, caught.value.status) == ("too_many_queued", 429)
    await send(database, "b", limits(queued=2))
    await take(database)
    await send(database, "a", limits(queued=2))


async def test_many_submissions_at_once_do_not_get_past_the_limit(database: Database) -> None:
    classes = [JobClass.INTERACTIVE, JobClass.BATCH] * 10
    sent = await asyncio.gather(
        *(send(database, "a", limits(queued=5), job_class=each) for each in classes), return_exceptions=True
    )
    assert sum(isinstance(each, Job) for each in sent) == 5
    assert sum(isinstance(each, QuotaExceeded) for each in sent) == 15


async def test_running_jobs_are_limited(database: Database) -> None:
    await send(database, "a")
    lease = await take(database)
    for check in (check_quotas(database, "a", limits(running=1)), send(database, "a", limits(running=1))):
        with pytest.raises(QuotaExceeded) as caught:
            await check
        assert caught.value.code == "too_many_running"
    await finish(database, lease)
    await send(database, "a", limits(running=1))


async def test_jobs_of_the_last_minute_are_limited_by_the_database_too(database: Database) -> None:
    await send(database, "a")
    with pytest.raises(QuotaExceeded) as caught:
        await check_quotas(database, "a", limits(uploads_per_minute=1))
    assert caught.value.code == "too_many_uploads"
    await database.fetch("UPDATE jobs SET created_at = created_at - interval '61 seconds' RETURNING 1")
    await check_quotas(database, "a", limits(uploads_per_minute=1))


async def test_inputs_count_while_a_job_needs_them_and_results_until_they_are_removed(database: Database) -> None:
    await send(database, "a", limits(stored_bytes=10), size=10)
    with pytest.raises(QuotaExceeded) as caught:
        await send(database, "a", limits(stored_bytes=10), size=1)
    assert caught.value.code == "too_much_stored"
    await finish(database, await take(database), size=4)
    await send(database, "a", limits(stored_bytes=10), size=6)
    with pytest.raises(QuotaExceeded):
        await check_stored(database, "a", limits(stored_bytes=10), 1)
    await check_stored(database, "b", limits(stored_bytes=10), 10)


async def test_kept_faces_count_as_stored(database: Database) -> None:
    row = "INSERT INTO avatars (id, tenant, file, file_bytes, face_type) VALUES (%s, 'a', '{}', 7, 'png') RETURNING 1"
    await database.fetch(row, uuid4())
    await check_stored(database, "a", limits(stored_bytes=10), 3)
    with pytest.raises(QuotaExceeded):
        await check_stored(database, "a", limits(stored_bytes=10), 4)


async def test_a_repeated_idempotency_key_gets_its_job_whatever_the_limits_say(database: Database) -> None:
    job = await send(database, "a", limits(queued=1), idempotency_key="k")
    assert (await send(database, "a", limits(queued=1), idempotency_key="k")).id == job.id


async def test_without_limits_nothing_is_checked(database: Database) -> None:
    await check_quotas(database, "", None, 10**15)
    await check_stored(database, "", None, 10**15)


def test_uploads_are_counted_for_one_minute() -> None:
    now = 0.0
    rates = UploadRates(lambda: now)
    rates.add("a", 2)
    now = 30.0
    rates.add("a", 2)
    now = 45.0
    with pytest.raises(QuotaExceeded) as caught:
        rates.add("a", 2)
    assert caught.value.retry_after == 15
    rates.add("b", 2)
    now = 60.0
    rates.add("a", 2)
    with pytest.raises(QuotaExceeded):
        rates.add("a", 2)


async def flood(database: Database, tenant: str, jobs: int, **more: Any) -> None:
    await asyncio.gather(*(send(database, tenant, **more) for _ in range(jobs)))


async def waits_of(database: Database, tenant: str, jobs: int) -> list[int]:
    """Return how many jobs are taken before and with each of a tenant's, which it sends one after the other."""
    waits = []
    for _ in range(jobs):
        job = await send(database, tenant)
        for taken in range(1, 100):
            lease = await take(database)
            await finish(database, lease)
            if lease.job.id == job.id:
                waits.append(taken)
                break
    return waits


async def test_a_tenant_that_floods_does_not_double_the_wait_of_another(database: Database) -> None:
    for tenant in ("c", "d", "e", "a"):  # an ordinary load: everybody has jobs waiting
        await flood(database, tenant, 8)
    before = await waits_of(database, "b", 4)
    await flood(database, "a", 100)
    after = await waits_of(database, "b", 4)
    assert len(before) == len(after) == 4
    assert sum(after) < 2 * sum(before)
    assert max(after) <= max(before) + 1


async def test_a_flood_takes_one_place_before_the_first_job_of_an_idle_service(database: Database) -> None:
    await flood(database, "a", 100)
    job = await send(database, "b")
    assert (await read.place(database, job)) == 2


async def test_batch_jobs_get_their_share_of_a_flood_of_interactive_ones(database: Database) -> None:
    for job_class in (JobClass.INTERACTIVE, JobClass.BATCH):
        await flood(database, "a", 25, job_class=job_class)
    taken = [(await take(database)).job.job_class for _ in range(25)]
    assert 4 <= taken.count(JobClass.BATCH) <= 7  # a fifth: 4 to 1
