"""What the sweep does to the tables: find what is over its time, and forget it.

Each step can be repeated: a record says that it has files until they are removed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from ..database import Database, session_lock
from ..records import Job, JobState
from .rows import STATE, add_event, job_of

BATCH = 200  # rows of one step
_LOCK = 0x6176_7377_6565_70  # of all sweeps of this service; any number that no other program uses


@asynccontextmanager
async def only_sweep(database: Database) -> AsyncIterator[bool]:
    """Yield whether no other process sweeps; none begins to within the block. Raises DatabaseUnavailable."""
    async with database.connection() as connection:
        rows = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS held", (_LOCK,))).fetchall()
        if not rows[0]["held"]:
            yield False
            return
        async with session_lock(connection, _LOCK):
            yield True


async def take_turn_to_compare(database: Database, every: timedelta) -> bool:
    """Return whether the store was not compared with the jobs for so long; from now on it counts as compared."""
    query = "UPDATE sweeps SET compared_at = now() WHERE compared_at < now() - %s RETURNING 1"
    return bool(await database.fetch(query, every))


async def expire(database: Database) -> int:
    """Make jobs `expired` whose results are over their time; return how many, at most BATCH."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            """
            UPDATE jobs SET state = 'expired' WHERE id IN (
                SELECT id FROM jobs WHERE state = 'succeeded' AND expires_at < now() LIMIT %s FOR UPDATE SKIP LOCKED
            ) RETURNING id
            """,
            (BATCH,),
        )
        ended = await rows.fetchall()
        for row in ended:
            await add_event(connection, row["id"], STATE, {"state": JobState.EXPIRED})
    return len(ended)


async def expired_with_results(database: Database) -> list[Job]:
    """Return expired jobs whose results are still in the store, at most BATCH."""
    query = "SELECT * FROM jobs WHERE state = 'expired' AND result_bytes > 0 LIMIT %s"
    return [job_of(row) for row in await database.fetch(query, BATCH)]


async def ended_with_inputs(database: Database) -> list[Job]:
    """Return jobs that have ended and whose inputs are still in the store, at most BATCH."""
    query = "SELECT * FROM jobs WHERE finished_at IS NOT NULL AND input_bytes > 0 LIMIT %s"
    return [job_of(row) for row in await database.fetch(query, BATCH)]


async def results_removed(database: Database, jobs: Collection[UUID]) -> None:
    """Write down that the store has no results of these expired jobs any more."""
    query = "UPDATE jobs SET result_bytes = 0 WHERE id = ANY(%s) AND state = 'expired' RETURNING 1"
    await database.fetch(query, list(jobs))


async def inputs_removed(database: Database, jobs: Collection[UUID]) -> None:
    """Write down that the store has no inputs of these jobs, which have ended, any more."""
    query = "UPDATE jobs SET input_bytes = 0 WHERE id = ANY(%s) AND finished_at IS NOT NULL RETURNING 1"
    await database.fetch(query, list(jobs))


async def outlived(database: Database, retention: timedelta) -> list[Job]:
    """Return jobs that ended so long ago and have no result that is still promised, at most BATCH."""
    query = """
        SELECT * FROM jobs WHERE finished_at < now() - %s AND (state <> 'succeeded' OR expires_at < now()) LIMIT %s
        """
    return [job_of(row) for row in await database.fetch(query, retention, BATCH)]


async def forget(database: Database, jobs: Collection[UUID]) -> None:
    """Remove the records of jobs that have ended, with their events and webhooks."""
    await database.fetch("DELETE FROM jobs WHERE id = ANY(%s) AND finished_at IS NOT NULL RETURNING 1", list(jobs))


async def forget_unused_avatars(database: Database, retention: timedelta) -> list[str]:
    """Remove the records of kept faces that no job has used for so long or will; return the keys of their files."""
    rows = await database.fetch(
        """
        DELETE FROM avatars WHERE used_at < now() - %s AND NOT EXISTS (
            SELECT 1 FROM jobs WHERE jobs.avatar = avatars.id AND jobs.state IN ('queued', 'running')
        ) RETURNING file
        """,
        retention,
    )
    return [row["file"]["key"] for row in rows]


async def forget_keys_and_log(database: Database) -> None:
    """Remove idempotency keys that count no more, and lines of PgQueuer's log that are older than a day."""
    await database.fetch("DELETE FROM idempotency_keys WHERE expires_at < now() RETURNING 1")
    await database.fetch("DELETE FROM pgqueuer_log WHERE created < now() - interval '1 day' RETURNING 1")


async def jobs_by_id(database: Database, jobs: Collection[UUID]) -> dict[UUID, Job]:
    """Return those of these jobs that have a record."""
    rows = await database.fetch("SELECT * FROM jobs WHERE id = ANY(%s)", list(jobs))
    return {row["id"]: job_of(row) for row in rows}


async def avatars_by_id(database: Database, avatars: Collection[UUID]) -> set[UUID]:
    """Return those of these kept faces that have a record."""
    return {row["id"] for row in await database.fetch("SELECT id FROM avatars WHERE id = ANY(%s)", list(avatars))}
