"""What a worker does to a job: take it, keep it, end it, give it back.

Every write of a worker names the attempt that it was given. If the job was canceled, or its lease has expired and
another worker has it, the write changes nothing and LeaseLost is raised: an old attempt cannot finish.

The row of the queue is locked before that of the job, everywhere, so that two transactions cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from uuid import UUID

from psycopg.types.json import Jsonb

from ..database import Connection, Database
from ..errors import LeaseLost
from ..queue import RENDER, QueueRow, dequeue, queue_on
from ..records import Job, JobError, JobResult, JobState, Progress, WebhookEvent
from .outbox import add_webhook
from .rows import STATE, add_event, job_of, result_to_json
from .running import hold_back_if_full, release, wake
from .totals import Total, count

WORKER_LOST = JobError("worker_lost", "every worker that ran the job was lost; it may need too much memory", 503)


@dataclass(frozen=True)
class Lease:
    """A job that a worker has taken, with this attempt.

    Attributes:
        took_over: whether the job ran already, and its worker was lost.
    """

    job: Job
    row: QueueRow
    took_over: bool

    @property
    def fence(self) -> tuple[UUID, int]:
        """Return what every write of this attempt names."""
        return self.job.id, self.job.attempt


async def claim(database: Database, worker: UUID, lease: timedelta, max_attempts: int) -> Lease | None:
    """Take the next job, or one whose worker has not been heard of for `lease`; return None if there is none.

    A job that has lost `max_attempts` workers fails here, and the next one is taken. So it is with a job whose owner
    runs as many as it may: it is held back until another one of the owner ends.
    """
    while True:
        async with database.transaction() as connection:
            row = await dequeue(connection, RENDER, worker, lease)
            if row is None:
                return None
            taken = await _take(connection, row, worker, max_attempts)
        if taken:
            return taken


async def _take(connection: Connection, row: QueueRow, worker: UUID, max_attempts: int) -> Lease | None:
    found = await connection.execute("SELECT * FROM jobs WHERE queue_id = %s FOR UPDATE", (row.id,))
    before = await found.fetchone()
    if before is None:
        await queue_on(connection).log_jobs([(row, "deleted", None)])
        return None
    job = job_of(before)
    took_over = job.state is JobState.RUNNING
    if job.attempt - job.given_back >= max_attempts:
        await _end(connection, Lease(job, row, took_over), JobState.FAILED, {"error": Jsonb(asdict(WORKER_LOST))})
        if took_over:
            await count(connection, Total.LEASE_LOSSES)
        return None
    if not took_over and await hold_back_if_full(connection, job, row):
        return None
    updated = await connection.execute(
        """
        UPDATE jobs SET state = 'running', attempt = attempt + 1, worker = %s, started_at = coalesce(started_at, now()),
                        stage = NULL, frames_done = NULL, frames_total = NULL
        WHERE id = %s RETURNING *
        """,
        (str(worker), job.id),
    )
    after = await updated.fetchone()
    assert after is not None  # noqa: S101 - the row is locked
    await connection.execute("UPDATE virtual_time SET start_tag = greatest(start_tag, %s)", (job.start_tag,))
    await count(connection, Total.ATTEMPTS)
    if took_over:
        await count(connection, Total.LEASE_LOSSES)
    taken = job_of(after)
    await add_event(connection, job.id, STATE, {"state": JobState.RUNNING, "attempt": taken.attempt})
    if taken.attempt == 1:
        await add_webhook(connection, taken, WebhookEvent.STARTED)
    return Lease(taken, row, took_over)


async def keep(database: Database, lease: Lease, progress: Progress | None) -> None:
    """Extend the lease, and write the progress. Raises LeaseLost, DatabaseUnavailable."""
    stage, done, total = (progress.stage, progress.frames_done, progress.frames_total) if progress else (None,) * 3
    async with database.transaction() as connection:
        await queue_on(connection).update_heartbeat([lease.row.id])
        rows = await connection.execute(
            """
            UPDATE jobs SET stage = %s, frames_done = %s, frames_total = %s
            WHERE id = %s AND attempt = %s AND state = 'running' RETURNING 1
            """,
            (stage, done, total, *lease.fence),
        )
        if await rows.fetchone() is None:
            raise LeaseLost


async def succeed(database: Database, lease: Lease, result: JobResult, lifetime: timedelta) -> Job:
    """End the job with its result, which is removed after `lifetime`. Raises LeaseLost, DatabaseUnavailable."""
    columns = {"result": result_to_json(result), "result_bytes": result.file.size, "lifetime": lifetime}
    columns |= {"frames_done": result.frames, "frames_total": result.frames}
    async with database.transaction() as connection:
        return await _end(connection, lease, JobState.SUCCEEDED, columns)


async def fail(database: Database, lease: Lease, error: JobError) -> Job:
    """End the job with an error. Raises LeaseLost, DatabaseUnavailable."""
    async with database.transaction() as connection:
        return await _end(connection, lease, JobState.FAILED, {"error": Jsonb(asdict(error))})


async def _end(connection: Connection, lease: Lease, state: JobState, columns: Mapping[str, object]) -> Job:
    ended, event = {
        JobState.SUCCEEDED: ("successful", WebhookEvent.SUCCEEDED),
        JobState.FAILED: ("exception", WebhookEvent.FAILED),
    }[state]
    await queue_on(connection).log_jobs([(lease.row, ended, None)])  # type: ignore[list-item]
    rows = await connection.execute(
        """
        UPDATE jobs SET state = %(state)s, queue_id = NULL, stage = NULL, finished_at = now(), worker = NULL,
                        error = %(error)s, result = %(result)s, result_bytes = %(result_bytes)s,
                        frames_done = coalesce(%(frames_done)s, frames_done),
                        frames_total = coalesce(%(frames_total)s, frames_total),
                        expires_at = now() + %(lifetime)s::interval
        WHERE id = %(id)s AND attempt = %(attempt)s AND state IN ('running', 'queued') RETURNING *
        """,
        {"error": None, "result": None, "result_bytes": 0, "lifetime": None, "frames_done": None, "frames_total": None}
        | {"state": state, "id": lease.fence[0], "attempt": lease.fence[1], **columns},
    )
    row = await rows.fetchone()
    if row is None:
        raise LeaseLost
    job = job_of(row)
    await add_event(connection, job.id, STATE, {"state": state})
    await add_webhook(connection, job, event)
    await release(connection, job.tenant)
    return job


async def give_back(database: Database, lease: Lease, delay: timedelta, *, counts: bool) -> None:
    """Put the job back into the queue, to be taken after `delay`.

    Args:
        counts: whether this attempt counts as a failed one; it does not if the worker is only stopped.

    Raises:
        LeaseLost: the job is not this worker's any more.
        DatabaseUnavailable: the database does not answer; the lease will expire.
    """
    async with database.transaction() as connection:
        await queue_on(connection).retry_job(lease.row, delay, None)
        rows = await connection.execute(
            """
            UPDATE jobs SET state = 'queued', worker = NULL, stage = NULL, frames_done = NULL, frames_total = NULL,
                            given_back = given_back + %s
            WHERE id = %s AND attempt = %s AND state = 'running' RETURNING 1
            """,
            (0 if counts else 1, *lease.fence),
        )
        if await rows.fetchone() is None:
            raise LeaseLost
        await add_event(connection, lease.job.id, STATE, {"state": JobState.QUEUED, "attempt": lease.job.attempt})
        await release(connection, lease.job.tenant)
        if not delay:  # another worker takes it at once
            await wake(connection)
