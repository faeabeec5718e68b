"""What a deliverer does to a webhook of the outbox: take it, keep it, end it, put it back for a later attempt.

As with jobs, every write names the attempt, so a deliverer whose lease was taken changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ..database import Connection, Database
from ..errors import LeaseLost
from ..queue import WEBHOOK, QueueRow, dequeue, queue_on
from .totals import Total, count

GONE = 410  # the receiver wants no more
_NOT_SENT = "not sent: the receiver answered an earlier webhook of this job with 410"


@dataclass(frozen=True)
class DueWebhook:
    """A webhook that a deliverer has taken.

    Attributes:
        id: of the message; the same for every attempt.
        attempt: 1 for the first one.
    """

    id: UUID
    job_id: UUID
    url: str
    body: str
    attempt: int
    created_at: datetime
    row: QueueRow


async def claim(database: Database, deliverer: UUID, lease: timedelta) -> DueWebhook | None:
    """Take a webhook that is due, or one whose deliverer has not been heard of for `lease`; None if there is none.

    One of a job whose receiver has answered 410 fails here, and the next one is taken. Raises DatabaseUnavailable.
    """
    while True:
        async with database.transaction() as connection:
            row = await dequeue(connection, WEBHOOK, deliverer, lease)
            if row is None:
                return None
            taken = await _take(connection, row)
        if taken:
            return taken


async def _take(connection: Connection, row: QueueRow) -> DueWebhook | None:
    delivery = UUID(bytes=row.payload)
    found = await connection.execute(
        """
        SELECT deliveries.*, jobs.webhook,
               EXISTS (SELECT 1 FROM webhook_deliveries AS other
                       WHERE other.job_id = jobs.id AND other.last_status = %s) AS gone
        FROM webhook_deliveries AS deliveries JOIN jobs ON jobs.id = deliveries.job_id
        WHERE deliveries.id = %s AND deliveries.state = 'pending' FOR UPDATE OF deliveries
        """,
        (GONE, delivery),
    )
    before = await found.fetchone()
    if before is None:  # the job was removed
        await queue_on(connection).log_jobs([(row, "deleted", None)])
        return None
    if before["gone"]:
        update = "UPDATE webhook_deliveries SET state = 'failed', last_error = %s WHERE id = %s"
        await connection.execute(update, (_NOT_SENT, delivery))
        await queue_on(connection).log_jobs([(row, "canceled", None)])
        return None
    update = "UPDATE webhook_deliveries SET attempts = attempts + 1, last_attempt_at = now() WHERE id = %s"
    await connection.execute(update, (delivery,))
    return DueWebhook(
        delivery,
        before["job_id"],
        before["webhook"],
        before["body"],
        before["attempts"] + 1,
        before["created_at"],
        row,
    )


async def keep(database: Database, due: DueWebhook) -> None:
    """Extend the lease. Raises DatabaseUnavailable."""
    async with database.connection() as connection:
        await queue_on(connection).update_heartbeat([due.row.id])


async def delivered(database: Database, due: DueWebhook, status: int) -> None:
    """End a webhook that was delivered. Raises LeaseLost, DatabaseUnavailable."""
    async with database.transaction() as connection:
        await queue_on(connection).log_jobs([(due.row, "successful", None)])
        await _update(connection, due, "delivered", status, None)


async def failed(database: Database, due: DueWebhook, status: int | None, error: str) -> None:
    """End a webhook that is not tried again. Raises LeaseLost, DatabaseUnavailable."""
    async with database.transaction() as connection:
        await queue_on(connection).log_jobs([(due.row, "exception", None)])
        await _update(connection, due, "failed", status, error)
        await count(connection, Total.WEBHOOK_FAILURES)


async def retry(database: Database, due: DueWebhook, status: int | None, error: str, pause: timedelta) -> None:
    """Put a webhook back, to be tried again after `pause`. Raises LeaseLost, DatabaseUnavailable."""
    async with database.transaction() as connection:
        await queue_on(connection).retry_job(due.row, pause, None)
        await _update(connection, due, "pending", status, error)
        await count(connection, Total.WEBHOOK_FAILURES)


async def _update(connection: Connection, due: DueWebhook, state: str, status: int | None, error: str | None) -> None:
    rows = await connection.execute(
        """
        UPDATE webhook_deliveries SET state = %s, last_status = %s, last_error = %s
        WHERE id = %s AND attempts = %s AND state = 'pending' RETURNING 1
        """,
        (state, status, error, due.id, due.attempt),
    )
    if await rows.fetchone() is None:
        raise LeaseLost
