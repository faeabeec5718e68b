"""What happens to a job between its claim and the start of its attempt."""

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.database import Database
from jobs.records import JobState
from jobs.repository import end, leases
from tests.support.gateway_fakes import eventually
from tests.support.job_workers import open_queue


async def test_a_job_that_is_canceled_while_it_is_claimed_stops_before_the_next_heartbeat(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = leases.claim

    async def claim_and_cancel(
        database: Database, owner: uuid.UUID, lease: timedelta, attempts: int
    ) -> leases.Lease | None:
        taken = await claim(database, owner, lease, attempts)
        if taken is not None:
            await end.cancel(database, "", taken.job.id)
            await asyncio.sleep(0.3)  # the notification finds nobody
        return taken

    monkeypatch.setattr(leases, "claim", claim_and_cancel)
    # a heartbeat every two and a half minutes
    async with open_queue(database_url, tmp_path, job_lease=600) as queue:
        queue.render.gate.clear()
        async with queue.worker() as worker:
            job = await queue.submit()
            await eventually(lambda: worker.running == 1)
            await eventually(lambda: worker.running == 0)
        assert (await queue.find(job)).state is JobState.CANCELED
