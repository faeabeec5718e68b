"""The outbox: a webhook is written in the transaction of the event that it tells, and sent afterwards."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ..database import Connection
from ..queue import WEBHOOK, queue_on
from ..records import Job, WebhookEvent
from ..views import JobView


async def add_webhook(connection: Connection, job: Job, event: WebhookEvent) -> None:
    """Write a webhook for an event of the job, if its caller asked for it."""
    if job.webhook is None or (job.webhook_events and event not in job.webhook_events):
        return
    view = JobView.of(job).model_dump(mode="json", exclude={"webhooks", "place"})
    body = json.dumps({"type": event, "timestamp": datetime.now(UTC).isoformat(), "data": view})
    rows = await connection.execute(
        "INSERT INTO webhook_deliveries (job_id, event, body) VALUES (%s, %s, %s) RETURNING id", (job.id, event, body)
    )
    row = await rows.fetchone()
    assert row is not None  # noqa: S101 - INSERT … RETURNING of one row
    await queue_on(connection).enqueue(WEBHOOK, row["id"].bytes)
