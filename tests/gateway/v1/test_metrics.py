"""GET /metrics shows the queue of all machines, read from the database, and the jobs of this process."""

import httpx
import pytest

from gateway import job_service
from jobs.database import Database
from tests.gateway.test_metrics import read, value
from tests.gateway.v1.conftest import ServeJobs, ended, service_v1, take
from tests.support.gateway_fakes import eventually, form


async def test_the_queue_is_shown_by_state_and_priority(
    jobs: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_service, "STATE_SECONDS", 0.0)
    samples = await read(jobs)
    assert value(samples, "avatar_queue_oldest_seconds", priority="batch") == 0
    assert ("avatar_queue_jobs", (("priority", "batch"), ("state", "running"))) in samples  # from the start
    for priority in ("interactive", "interactive", "batch"):
        await jobs.post("/v1/jobs", files=form(priority=priority))
    await take(database)
    samples = await read(jobs)
    assert value(samples, "avatar_queue_jobs", state="queued", priority="interactive") == 1
    assert value(samples, "avatar_queue_jobs", state="running", priority="interactive") == 1
    assert value(samples, "avatar_queue_jobs", state="queued", priority="batch") == 1
    assert value(samples, "avatar_queue_oldest_seconds", priority="batch") > 0
    assert value(samples, "avatar_queue_attempts_total") == 1
    assert value(samples, "avatar_queue_lease_losses_total") == 0
    assert value(samples, "avatar_webhook_failures_total") == 0


async def test_many_scrapes_read_the_database_once(jobs: httpx.AsyncClient) -> None:
    v1 = service_v1(jobs)
    states = [await v1.queue_state() for _ in range(5)]
    assert states[0] is not None
    assert all(state is states[0] for state in states)


async def test_the_jobs_of_this_process_are_counted(serve_jobs: ServeJobs) -> None:
    async with serve_jobs(workers=1) as client:
        await ended(client, (await client.post("/v1/jobs", files=form())).headers["location"])
        worker = service_v1(client).worker
        assert worker is not None
        await eventually(lambda: not worker.running)
        samples = await read(client)
    assert value(samples, "avatar_worker_jobs_total", outcome="succeeded") == 1
    assert value(samples, "avatar_frames_total") == 3
