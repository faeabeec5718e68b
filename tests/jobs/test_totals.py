"""What the metrics read: the queue at this moment, and totals that only grow."""

import asyncio
from datetime import timedelta
from uuid import uuid4

from jobs.database import Database
from jobs.records import JobClass, JobState, Submission
from jobs.repository import leases
from jobs.repository.submit import submit
from jobs.repository.totals import Total, queue_state


async def test_the_state_of_the_queue(database_url: str) -> None:
    async with Database(database_url) as database:
        empty = await queue_state(database)
        assert (empty.jobs, set(empty.oldest.values()), set(empty.totals.values())) == ({}, {0.0}, {0})
        for job_class in (JobClass.INTERACTIVE, JobClass.INTERACTIVE, JobClass.BATCH):
            await submit(database, Submission(uuid4(), {}, "", job_class=job_class), timedelta(hours=1))
        await leases.claim(database, uuid4(), timedelta(seconds=20), 3)
        state = await queue_state(database)
        assert state.jobs == {
            (JobState.QUEUED, JobClass.INTERACTIVE): 1,
            (JobState.QUEUED, JobClass.BATCH): 1,
            (JobState.RUNNING, JobClass.INTERACTIVE): 1,
        }
        assert all(0 < seconds < 60 for seconds in state.oldest.values())
        assert state.totals == {Total.ATTEMPTS: 1, Total.LEASE_LOSSES: 0, Total.WEBHOOK_FAILURES: 0}


async def test_a_lost_lease_is_counted_also_if_the_job_fails_then(database_url: str) -> None:
    lease = timedelta(milliseconds=10)
    async with Database(database_url) as database:
        job, _ = await submit(database, Submission(uuid4(), {}, ""), timedelta(hours=1))
        for _ in range(2):
            taken = await leases.claim(database, uuid4(), lease, 2)
            assert taken is not None
            assert taken.job.id == job.id
            await asyncio.sleep(0.05)
        assert await leases.claim(database, uuid4(), lease, 2) is None
        totals = (await queue_state(database)).totals
        assert totals == {Total.ATTEMPTS: 2, Total.LEASE_LOSSES: 2, Total.WEBHOOK_FAILURES: 0}
