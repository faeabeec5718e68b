"""What the owner of a job does to it: cancel it, or remove it."""

from __future__ import annotations

from uuid import UUID

from ..database import SCHEMA, Connection, Database
from ..errors import JobNotFound
from ..queue import queue_on
from ..records import Job, JobState, WebhookEvent
from .outbox import add_webhook
from .read import NOT_FOUND
from .rows import STATE, add_event, job_of
from .running import release


async def cancel(database: Database, tenant: str, job_id: UUID) -> tuple[Job, bool]:
    """Cancel a job that is queued or runs; its worker is notified.

    Returns:
        the job, and whether this call canceled it; if not, it was final already.

    Raises:
        JobNotFound: the tenant has no such job.
        DatabaseUnavailable: the database does not answer.
    """
    async with database.transaction() as connection:
        job = await _locked(connection, tenant, job_id)
        if job.state.is_final:
            return job, False
        rows = await connection.execute(
            """
            UPDATE jobs SET state = 'canceled', queue_id = NULL, stage = NULL, finished_at = now(), worker = NULL
            WHERE id = %s RETURNING *
            """,
            (job_id,),
        )
        row = await rows.fetchone()
        assert row is not None  # noqa: S101 - the row is locked
        canceled = job_of(row)
        assert job.queue_id is not None  # noqa: S101 - only final jobs have none
        await queue_on(connection).mark_job_as_cancelled([job.queue_id])  # type: ignore[list-item]
        await add_event(connection, job_id, STATE, {"state": JobState.CANCELED})
        await add_webhook(connection, canceled, WebhookEvent.CANCELED)
        if job.state is JobState.RUNNING:
            await release(connection, tenant)
        return canceled, True


async def remove(database: Database, tenant: str, job_id: UUID) -> None:
    """Remove the record of a final job. Its files have to be removed from the store before. Raises JobNotFound."""
    query = "DELETE FROM jobs WHERE id = %s AND tenant = %s AND finished_at IS NOT NULL RETURNING 1"
    if not await database.fetch(query, job_id, tenant):
        raise JobNotFound(NOT_FOUND)


async def _locked(connection: Connection, tenant: str, job_id: UUID) -> Job:
    """Return the job, with the row of the queue locked first (see `leases`)."""
    lock = f"""
        SELECT 1 FROM {SCHEMA}.pgqueuer WHERE id = (SELECT queue_id FROM jobs WHERE id = %s AND tenant = %s) FOR UPDATE
        """  # noqa: S608 - a constant
    await connection.execute(lock.encode(), (job_id, tenant))
    rows = await connection.execute("SELECT * FROM jobs WHERE id = %s AND tenant = %s FOR UPDATE", (job_id, tenant))
    row = await rows.fetchone()
    if row is None:
        raise JobNotFound(NOT_FOUND)
    return job_of(row)
