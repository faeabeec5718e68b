"""What a worker asks about jobs besides its leases: whether there are any, and what became of one."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from ..database import Database
from ..queue import RENDER
from ..records import Job
from .rows import job_of


async def claimable(database: Database, lease: timedelta, most: int) -> int:
    """Return how many jobs a worker could take now, counted up to `most`. Raises DatabaseUnavailable."""
    (row,) = await database.fetch(
        """
        SELECT count(*) AS number FROM (
            (SELECT 1 FROM pgqueuer WHERE entrypoint = %s AND status = 'queued' AND execute_after < now() LIMIT %s)
            UNION ALL
            (SELECT 1 FROM pgqueuer WHERE entrypoint = %s AND status = 'picked' AND heartbeat < now() - %s LIMIT %s)
        ) AS waiting
        """,
        RENDER,
        most,
        RENDER,
        lease,
        most,
    )
    return min(int(row["number"]), most)


async def find(database: Database, job_id: UUID) -> Job | None:
    """Return a job of any tenant, or None if its record was removed. Raises DatabaseUnavailable."""
    rows = await database.fetch("SELECT * FROM jobs WHERE id = %s", job_id)
    return job_of(rows[0]) if rows else None


async def inputs_removed(database: Database, job_id: UUID) -> None:
    """Write down that the store has no inputs of a job that has ended any more. Raises DatabaseUnavailable."""
    query = "UPDATE jobs SET input_bytes = 0 WHERE id = %s AND finished_at IS NOT NULL RETURNING 1"
    await database.fetch(query, job_id)
