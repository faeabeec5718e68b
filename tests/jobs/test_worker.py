"""A worker takes jobs, keeps them, ends them once, and gives back what it cannot end."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from avatar.errors import FaceNotFound, ShuttingDown, Unavailable
from avatar.resources.admission import Admission
from embedded.postgres import Postgres
from jobs.errors import LeaseLost
from jobs.migrate import migrate
from jobs.records import Job, JobResult, JobState, StoredFile
from jobs.reports import NoReport, Outcome
from jobs.repository import end, leases, read
from jobs.sweep import sweep
from tests.support.gateway_fakes import DownModels, eventually
from tests.support.job_workers import LEASE, STEPS, Queue, open_queue, worker_process
from tests.support.postgres import server_options


@pytest.fixture
async def queue(database_url: str, tmp_path: Path) -> AsyncIterator[Queue]:
    async with open_queue(database_url, tmp_path) as opened:
        yield opened


async def test_a_job_is_taken_at_once_and_ends_with_its_video(queue: Queue) -> None:
    async with queue.worker():
        await asyncio.sleep(0.1)  # the worker waits for a notification now
        start = time.monotonic()
        job = await queue.submit()
        ended = await queue.reaches(job)
        assert time.monotonic() - start < LEASE * 5
    assert ended.state is JobState.SUCCEEDED and ended.attempt == 1 and ended.error is None
    assert ended.result is not None and ended.result.frames == 3 and ended.result.encoder == "x264"
    assert await queue.video(job) == b"face|speech"
    assert await queue.files() == [f"results/{job.id}/1.mp4"]
    assert [event.data["state"] for event in await read.events(queue.database, job.id)] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert not list((queue.folder / "work").iterdir())


async def test_a_worker_runs_as_many_jobs_as_it_has_slots(queue: Queue) -> None:
    queue.render.gate.clear()
    async with queue.worker(slots=2) as worker:
        jobs = [await queue.submit() for _ in range(3)]
        await queue.render.reached(2)
        await asyncio.sleep(0.3)
        assert worker.running == 2
        queue.render.gate.set()
        for job in jobs:
            assert (await queue.reaches(job)).state is JobState.SUCCEEDED
    assert queue.render.most_running == 2


async def test_a_canceled_job_stops_soon_and_leaves_no_file(queue: Queue) -> None:
    queue.render.gate.clear()
    async with queue.worker() as worker:
        job = await queue.submit()
        await queue.render.reached(1)
        start = time.monotonic()
        _, canceled = await end.cancel(queue.database, "", job.id)
        assert canceled
        await queue.render.reached(0)
        assert time.monotonic() - start < LEASE * 5
        await eventually(lambda: not worker.running)
        assert await queue.files() == []
    assert (await queue.find(job)).state is JobState.CANCELED and queue.render.cancelled == 1


async def test_an_attempt_whose_lease_was_taken_cannot_finish(queue: Queue) -> None:
    await queue.submit()
    old = await leases.claim(queue.database, uuid4(), queue.settings.lease, 3)
    assert old is not None
    async with queue.worker():
        ended = await queue.reaches(old.job)
    assert ended.attempt == 2
    result = JobResult(StoredFile("results/x", 1, ""), "mp4", 1, 25, 0.04, 0)
    with pytest.raises(LeaseLost):
        await leases.succeed(queue.database, old, result, timedelta(hours=1))
    with pytest.raises(LeaseLost):
        await leases.keep(queue.database, old, None)
    assert await queue.find(old.job) == ended


async def test_a_worker_that_lost_its_lease_cancels_the_work_and_changes_nothing(queue: Queue) -> None:
    outcomes: list[Outcome] = []

    class Report(NoReport):
        def ended(self, job: Job, outcome: Outcome, seconds: float) -> None:
            outcomes.append(outcome)

    # nobody renews the lease that was lost: with a short one, this worker would soon take the job again
    queue.settings = queue.settings.model_copy(update={"job_lease": 4.0})
    queue.render.gate.clear()
    async with queue.worker(slots=1, report=Report()):
        job = await queue.submit()
        await queue.render.reached(1)
        # as if another worker had taken it
        await queue.database.fetch("UPDATE jobs SET attempt = attempt + 1 WHERE id = %s RETURNING 1", job.id)
        await queue.render.reached(0)
    found = await queue.find(job)
    assert found.state is JobState.RUNNING and outcomes == ["lost"]
    assert sorted(await queue.files()) == sorted(file.key for file in job.inputs.values())


async def test_a_caller_s_mistake_fails_the_job_at_once(queue: Queue) -> None:
    queue.render.error = FaceNotFound()
    async with queue.worker():
        job = await queue.submit()
        ended = await queue.reaches(job)
    assert ended.state is JobState.FAILED and ended.attempt == 1
    assert ended.error is not None and ended.error.code == "face_not_found" and ended.error.status == 400
    assert ended.error.detail.startswith("Face not detected!")
    assert await queue.files() == []


async def test_a_fault_of_the_machine_is_tried_again_until_the_attempts_are_used_up(queue: Queue) -> None:
    queue.render.error = Unavailable("Triton does not answer")
    async with queue.worker():
        job = await queue.submit()
        ended = await queue.reaches(job)
    assert ended.state is JobState.FAILED and ended.attempt == queue.settings.job_attempts == 3
    assert ended.error is not None and ended.error.code == "unavailable" and ended.error.status == 503
    assert await queue.files() == []


async def test_a_defect_is_an_internal_error_without_details(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    queue.render.error = ZeroDivisionError("a secret")
    async with queue.worker():
        ended = await queue.reaches(await queue.submit())
    assert ended.error is not None and (ended.error.code, ended.error.status) == ("internal_error", 500)
    assert "secret" not in ended.error.detail
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_no_job_is_taken_while_the_models_are_down(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    up, queue.models = queue.models, DownModels()
    async with queue.worker():
        job = await queue.submit()
        await eventually(lambda: "no jobs are taken" in caplog.text)
        await asyncio.sleep(LEASE)
        assert (await queue.find(job)).state is JobState.QUEUED
        assert caplog.text.count("no jobs are taken: Triton does not answer") == 1
    queue.models = up
    async with queue.worker():
        assert (await queue.reaches(job)).attempt == 1


async def test_jobs_and_forms_share_the_places_in_order(queue: Queue) -> None:
    admission = Admission(max_running=1, max_queued=5)
    async with queue.worker(admission=admission):
        async with admission.slot():  # a form runs
            job = await queue.submit()
            await eventually(lambda: admission.queued == 1)
            assert (await queue.find(job)).state is JobState.QUEUED  # another machine could take it
            form = asyncio.create_task(_second_form(admission, queue, job))
        async with asyncio.timeout(10):
            assert await form  # the job was first


async def _second_form(admission: Admission, queue: Queue, job: Job) -> bool:
    async with admission.slot():
        return (await queue.find(job)).state is JobState.SUCCEEDED


async def test_a_closed_admission_ends_the_slots(queue: Queue) -> None:
    admission = Admission(max_running=1, max_queued=1)
    async with queue.worker(admission=admission):
        admission.close(0)
        with pytest.raises(ShuttingDown):
            async with admission.slot():
                pass
        job = await queue.submit()
        await asyncio.sleep(0.2)
    assert (await queue.find(job)).state is JobState.QUEUED


async def test_a_stopped_worker_finishes_within_the_grace_or_gives_back(queue: Queue) -> None:
    queue.render.gate.clear()
    async with queue.worker() as worker:
        job = await queue.submit()
        await queue.render.reached(1)
        worker.stop(60)
        waiting = await queue.submit()
        await asyncio.sleep(0.2)
        queue.render.gate.set()
        assert (await queue.reaches(job)).state is JobState.SUCCEEDED
    queue.render.gate.clear()
    async with queue.worker():
        await queue.reaches(waiting, JobState.RUNNING)
        await queue.render.reached(1)
    given_back = await queue.find(waiting)
    assert (given_back.state, given_back.attempt, given_back.given_back) == (JobState.QUEUED, 1, 1)
    assert given_back.stage is None


async def test_the_progress_is_in_the_record_with_the_next_heartbeat(queue: Queue) -> None:
    queue.render.gate.clear()
    async with queue.worker():
        job = await queue.submit()
        await queue.reaches(job, JobState.RUNNING, stage="detect")
        assert (await queue.find(job)).frames_total == 1


@pytest.mark.parametrize("step", STEPS)
async def test_a_killed_worker_is_replaced_and_the_job_ends_once(queue: Queue, step: str) -> None:
    job = await queue.submit()
    with worker_process(queue, stall=step) as process:
        await asyncio.to_thread(process.stalls, step)
        process.end(signal.SIGKILL)
    assert (await queue.find(job)).state is JobState.RUNNING
    async with queue.worker():
        ended = await queue.reaches(job)
    assert ended.state is JobState.SUCCEEDED and ended.attempt == 2
    assert await queue.video(job) == b"face|speech"
    await sweep(queue.database, queue.store, queue.settings, timedelta(0), compare=True)
    assert await queue.files() == [f"results/{job.id}/2.mp4"]
    assert not list((queue.folder / "work").iterdir())
    states = [event.data["state"] for event in await read.events(queue.database, job.id)]
    assert states == ["queued", "running", "running", "succeeded"]


async def test_a_worker_that_is_terminated_gives_its_job_back_at_once(queue: Queue) -> None:
    job = await queue.submit()
    with worker_process(queue, stall="rendering", AVATAR_SHUTDOWN_GRACE="0") as process:
        await asyncio.to_thread(process.stalls, "rendering")
        assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
    given_back = await queue.find(job)
    assert given_back.state is JobState.QUEUED and given_back.given_back == 1
    assert not list((queue.folder / "work").iterdir())


async def test_a_job_that_loses_every_worker_fails(queue: Queue) -> None:
    job = await queue.submit()
    for _ in range(3):
        lease = await leases.claim(queue.database, uuid4(), timedelta(0), 3)
        assert lease is not None
    async with queue.worker():
        ended = await queue.reaches(job)
        assert ended.error is not None and ended.error.code == "worker_lost"


async def test_a_job_outlives_the_database(database_folder: Path, tmp_path: Path) -> None:
    with Postgres(database_folder / "data", **server_options(database_folder)) as server:
        async with open_queue(server.url, tmp_path, job_lease=2.0) as queue:
            await migrate(queue.database)
            queue.render.gate.clear()
            async with queue.worker() as worker:
                job = await queue.submit()
                await queue.render.reached(1)
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.to_thread(server.stop)
                queue.render.gate.set()
                await asyncio.sleep(0.5)
                assert worker.running == 1  # it cannot end the job yet
                with Postgres(database_folder / "data", **server_options(database_folder)):
                    ended = await queue.reaches(job)
                    assert ended.state is JobState.SUCCEEDED and ended.attempt == 1
                    assert await queue.video(job) == b"face|speech"
                    later = await queue.submit()
                    assert (await queue.reaches(later)).state is JobState.SUCCEEDED
