"""The limit of running jobs of an owner, as claims respect it.

A claim that meets a job of an owner that runs as many as it may holds it back, and the owner's other jobs that wait:
their rows of the queue move to its end, where no claim meets them again. Whatever ends or gives back a running job of
the owner releases the next one. So a claim stays one scan of an index, however many jobs are held.

The row of the owner's limit is locked by both, after the rows of the job, so that a job is not held back at the moment
in which the last running one ends. Rows of other jobs that are locked are passed over: then another transaction has
them.
"""

from __future__ import annotations

from ..database import Connection, Database
from ..fairness import priority
from ..queue import QueueRow
from ..records import NO_TENANT, Job

WAKE_CHANNEL = "avatar_wake"  # notified when a job that waited can be taken now; without a payload
BATCH = 500  # jobs that one claim holds back
_FAR = "9999-01-01"  # when a job that is held back may be taken
_LAST = -(2**31)  # the priority of such a job: after all others


async def remember_limit(connection: Connection, tenant: str, running: int) -> None:
    """Write the limit of running jobs, if it has changed, and release jobs if it has grown."""
    rows = await connection.execute(
        """
        INSERT INTO running_limits SELECT %(tenant)s, %(running)s
        WHERE NOT EXISTS (SELECT 1 FROM running_limits WHERE tenant = %(tenant)s AND running = %(running)s)
        ON CONFLICT (tenant) DO UPDATE SET running = excluded.running RETURNING 1
        """,
        {"tenant": tenant, "running": running},
    )
    if await rows.fetchone():
        await release(connection, tenant)


async def hold_back_if_full(connection: Connection, job: Job, row: QueueRow) -> bool:
    """Return whether the job that was just taken from the queue has to wait; if so, it is held back."""
    free = await _free(connection, job.tenant)
    if free is None or free > 0:
        return False
    await connection.execute(
        """
        WITH waiting AS (
            SELECT queue.id FROM jobs JOIN pgqueuer AS queue ON queue.id = jobs.queue_id
            WHERE jobs.tenant = %(tenant)s AND jobs.state = 'queued' AND NOT jobs.held
                  AND queue.status = 'queued' AND queue.execute_after < now()
            ORDER BY jobs.start_tag, jobs.queue_id LIMIT %(most)s FOR UPDATE OF queue SKIP LOCKED
        ), moved AS (
            UPDATE pgqueuer SET status = 'queued', queue_manager_id = NULL, execute_after = %(far)s, priority = %(last)s
            WHERE id = %(own)s OR id IN (SELECT id FROM waiting) RETURNING id
        )
        UPDATE jobs SET held = true WHERE queue_id IN (SELECT id FROM moved)
        """,
        {"tenant": job.tenant, "most": BATCH, "far": _FAR, "last": _LAST, "own": row.id},
    )
    return True


async def release(connection: Connection, tenant: str) -> None:
    """Put as many held jobs of the owner back to their places in the queue as it may run now, the earliest first."""
    free = await _free(connection, tenant)
    if free is None or free <= 0:
        return
    rows = await connection.execute(
        f"""
        WITH first AS (
            SELECT queue.id, jobs.start_tag FROM jobs JOIN pgqueuer AS queue ON queue.id = jobs.queue_id
            WHERE jobs.tenant = %s AND jobs.held AND jobs.state = 'queued'
            ORDER BY jobs.start_tag, jobs.queue_id LIMIT %s FOR UPDATE OF queue SKIP LOCKED
        ), moved AS (
            UPDATE pgqueuer SET execute_after = now(), priority = {priority(1)} * first.start_tag
            FROM first WHERE pgqueuer.id = first.id RETURNING pgqueuer.id
        )
        UPDATE jobs SET held = false WHERE queue_id IN (SELECT id FROM moved) RETURNING 1
        """.encode(),  # noqa: S608 - a number
        (tenant, free),
    )
    if await rows.fetchone():
        await wake(connection)


async def release_everywhere(database: Database) -> None:
    """Release what could run, of every owner: for a transaction that was to release jobs and failed."""
    for row in await database.fetch("SELECT DISTINCT tenant FROM jobs WHERE held AND state = 'queued'"):
        async with database.transaction() as connection:
            await release(connection, row["tenant"])


async def wake(connection: Connection) -> None:
    """Notify the workers, when the transaction is committed, of a job that can be taken."""
    await connection.execute("SELECT pg_notify(%s, '')", (WAKE_CHANNEL,))


async def _free(connection: Connection, tenant: str) -> int | None:
    """Lock the owner's limit; return how many jobs it may start now, or None if it has no limit."""
    if tenant == NO_TENANT:
        return None
    rows = await connection.execute("SELECT running FROM running_limits WHERE tenant = %s FOR UPDATE", (tenant,))
    limit = await rows.fetchone()
    if limit is None:
        return None
    counted = await connection.execute(
        "SELECT count(*) AS running FROM jobs WHERE tenant = %s AND state = 'running'", (tenant,)
    )
    row = await counted.fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(limit["running"]) - int(row["running"])
