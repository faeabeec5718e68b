"""Submit a job."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

from psycopg.types.json import Jsonb

from .. import fairness
from ..database import Connection, Database
from ..errors import IdempotencyConflict
from ..keys import KeyLimits
from ..queue import RENDER, queue_on
from ..quotas import check_in_transaction
from ..records import Job, JobState, Submission
from .rows import STATE, add_event, job_of
from .running import remember_limit

CONFLICT = "Idempotency-Key: it was used before for a job with other content; use a new key for another job"


async def submit(
    database: Database, submission: Submission, key_lifetime: timedelta, limits: KeyLimits | None = None
) -> tuple[Job, bool]:
    """Add a job to the record and to the queue, unless its idempotency key has one already.

    Args:
        key_lifetime: how long an idempotency key counts.
        limits: of the tenant; None for a tenant without limits.

    Returns:
        the job, and whether it is new. If not, the inputs of the submission are of no use.

    Raises:
        IdempotencyConflict: the key was used for another content.
        QuotaExceeded: the tenant has as much as it may have.
        DatabaseUnavailable: the database does not answer; the job may exist, and the same key finds out.
    """
    async with database.transaction() as connection:
        if submission.idempotency_key is not None:
            earlier = await _claim_key(connection, submission, key_lifetime)
            if earlier is not None:
                return earlier, False
        if limits is not None:
            size = sum(file.size for file in submission.inputs.values())
            await check_in_transaction(connection, submission.tenant, limits, size)
            await remember_limit(connection, submission.tenant, limits.running)
        return await _insert(connection, submission, key_lifetime), True


async def find_by_key(database: Database, submission: Submission) -> Job | None:
    """Return the job that has the submission's idempotency key already, if any. Raises as `submit`."""
    if submission.idempotency_key is None:
        return None
    async with database.connection() as connection:
        return await _earlier(connection, submission)


async def _claim_key(connection: Connection, submission: Submission, lifetime: timedelta) -> Job | None:
    """Return the job that has the key. If none has, a second submission with the key waits for this transaction."""
    lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s || E'\\n' || %s, 0))"
    await connection.execute(lock.encode(), (submission.tenant, submission.idempotency_key))
    return await _earlier(connection, submission)


async def _earlier(connection: Connection, submission: Submission) -> Job | None:
    rows = await connection.execute(
        """
        SELECT jobs.*, keys.digest AS key_digest FROM idempotency_keys AS keys JOIN jobs ON jobs.id = keys.job_id
        WHERE keys.tenant = %s AND keys.key = %s AND keys.expires_at > now()
        """,
        (submission.tenant, submission.idempotency_key),
    )
    row = await rows.fetchone()
    if row is None:
        return None
    if row["key_digest"] != submission.digest:
        raise IdempotencyConflict(CONFLICT)
    return job_of(row)


async def _insert(connection: Connection, submission: Submission, key_lifetime: timedelta) -> Job:
    start = await _start_tag(connection, submission)
    queue = queue_on(connection)
    (queue_id,) = await queue.enqueue(RENDER, submission.id.bytes, priority=fairness.priority(start))
    rows = await connection.execute(
        """
        INSERT INTO jobs (id, tenant, class, queue_id, start_tag, form, inputs, input_bytes, urls, avatar, result_url,
                          webhook, webhook_events, request_id, traceparent)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        RETURNING *
        """,
        (
            submission.id,
            submission.tenant,
            submission.job_class,
            queue_id,
            start,
            Jsonb(dict(submission.form)),
            Jsonb({field: asdict(file) for field, file in submission.inputs.items()}),
            sum(file.size for file in submission.inputs.values()),
            Jsonb(dict(submission.urls)),
            submission.avatar,
            submission.result_url,
            submission.webhook,
            list(submission.webhook_events),
            submission.request_id,
            submission.traceparent,
        ),
    )
    row = await rows.fetchone()
    assert row is not None  # noqa: S101 - INSERT … RETURNING of one row
    if submission.idempotency_key is not None:
        await connection.execute(
            """
            INSERT INTO idempotency_keys (tenant, key, digest, job_id, expires_at) VALUES (%s, %s, %s, %s, now() + %s)
            ON CONFLICT (tenant, key) DO UPDATE
            SET digest = excluded.digest, job_id = excluded.job_id, expires_at = excluded.expires_at
            """,
            (submission.tenant, submission.idempotency_key, submission.digest, submission.id, key_lifetime),
        )
    await add_event(connection, submission.id, STATE, {"state": JobState.QUEUED})
    return job_of(row)


async def _start_tag(connection: Connection, submission: Submission) -> int:
    """Return the start tag of the job, and move the finish tag of its flow (see `jobs.fairness`)."""
    flow = (submission.tenant, submission.job_class)
    await connection.execute(
        "INSERT INTO flows (tenant, class, finish_tag) VALUES (%s, %s, 0) ON CONFLICT DO NOTHING", flow
    )
    rows = await connection.execute(
        """
        SELECT flows.finish_tag, virtual_time.start_tag FROM flows, virtual_time
        WHERE flows.tenant = %s AND flows.class = %s FOR UPDATE OF flows
        """,
        flow,
    )
    row = await rows.fetchone()
    assert row is not None  # noqa: S101 - both rows exist
    start = fairness.start_tag(row["start_tag"], row["finish_tag"])
    finish = fairness.finish_tag(start, submission.job_class)
    await connection.execute("UPDATE flows SET finish_tag = %s WHERE tenant = %s AND class = %s", (finish, *flow))
    return start
