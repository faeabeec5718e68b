"""Many jobs over workers of which one after the other is killed: every job ends exactly once, with its own video."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from jobs.records import Job, JobState
from jobs.repository import read
from jobs.sweep import sweep
from tests.support.job_workers import Queue, WorkerProcess, open_queue, worker_process

SLOTS = 2  # of tests.support.stalling_worker


@pytest.fixture
async def queue(database_url: str, tmp_path: Path) -> AsyncIterator[Queue]:
    async with open_queue(database_url, tmp_path, job_attempts=20) as opened:
        yield opened


@pytest.mark.parametrize(
    ("workers_at_once", "jobs", "seconds", "pause", "kills"),
    [
        (2, 24, "0.5", 0.3, 2),
        pytest.param(3, 200, "0.3", 0.8, 3, marks=pytest.mark.slow),
        pytest.param(3, 2000, "0.3", 3.0, 30, marks=pytest.mark.slow),
    ],
)
async def test_every_job_ends_once_while_workers_are_killed(
    queue: Queue, workers_at_once: int, jobs: int, seconds: str, pause: float, kills: int
) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(worker_process(queue, TINY_JOB_SECONDS=seconds)) for _ in range(workers_at_once)]
        await asyncio.to_thread(_all_started, workers)  # otherwise the first one may do all jobs alone
        submitted = [await queue.submit(face=b"face %d" % number) for number in range(jobs)]
        await _all_busy(queue, workers_at_once * SLOTS)
        for kill in range(kills):
            number = kill % workers_at_once
            await asyncio.to_thread(workers[number].end, signal.SIGKILL)
            workers[number] = stack.enter_context(worker_process(queue, TINY_JOB_SECONDS=seconds))
            await asyncio.sleep(pause)
        ended = [await queue.reaches(job, seconds=120) for job in submitted]
        attempts = sum(job.attempt for job in ended)
        for worker in workers:
            await asyncio.to_thread(worker.end, signal.SIGTERM)
    assert {job.state for job in ended} == {JobState.SUCCEEDED}
    assert attempts > jobs  # some were killed
    await _check(queue, ended)


def _all_started(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        worker.stalls("started")


async def _all_busy(queue: Queue, running: int) -> None:
    """Return when so many jobs run: the first worker that is killed has some."""
    async with asyncio.timeout(60):
        while True:
            (row,) = await queue.database.fetch("SELECT count(*) AS jobs FROM jobs WHERE state = 'running'")
            if row["jobs"] == running:
                return
            await asyncio.sleep(0.02)


async def _check(queue: Queue, jobs: list[Job]) -> None:
    """Every job has its own video and ended once, and nothing else is left."""
    for number, job in enumerate(jobs):
        assert await queue.video(job) == b"face %d|speech" % number
        states = Counter(event.data["state"] for event in await read.events(queue.database, job.id))
        assert states == {"queued": 1, "running": job.attempt, "succeeded": 1}
    await sweep(queue.database, queue.store, queue.settings, timedelta(0), compare=True)
    assert await queue.files() == sorted(job.result.file.key for job in jobs if job.result)
    assert await queue.database.fetch("SELECT 1 FROM pgqueuer") == []
    async with queue.worker():  # which removes the work folders of the killed ones
        pass
    assert not list(queue.settings.work_dir.iterdir())
