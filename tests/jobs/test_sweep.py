"""The sweep removes what is over its time and what killed processes left, and nothing else."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from jobs.records import Job, JobState
from jobs.repository import end, retention, work
from jobs.sweep import Swept, sweep
from tests.support.job_workers import Queue, open_queue, worker_process

NOW = timedelta(0)


@pytest.fixture
async def queue(database_url: str, tmp_path: Path) -> AsyncIterator[Queue]:
    async with open_queue(database_url, tmp_path) as opened:
        yield opened


async def _sweep(queue: Queue, grace: timedelta = NOW) -> Swept:
    swept = await sweep(queue.database, queue.store, queue.settings, grace, compare=True)
    assert swept is not None
    return swept


async def _done(queue: Queue) -> Job:
    async with queue.worker():
        return await queue.reaches(await queue.submit())


async def _age(queue: Queue, job: Job, hours: int) -> None:
    """Move the end of a job into the past."""
    await queue.database.fetch(
        "UPDATE jobs SET finished_at = finished_at - %s, expires_at = expires_at - %s WHERE id = %s RETURNING 1",
        timedelta(hours=hours),
        timedelta(hours=hours),
        job.id,
    )


async def _put(queue: Queue, key: str) -> None:
    path = queue.folder / "file"
    path.write_bytes(b"content")
    await queue.store.put_file(key, path)


async def test_what_jobs_need_stays(queue: Queue) -> None:
    done = await _done(queue)
    queued = await queue.submit()
    assert await _sweep(queue) == Swept()
    assert await queue.find(done) == done and await queue.find(queued) == queued
    assert await queue.files() == sorted([f"results/{done.id}/1.mp4", *(file.key for file in queued.inputs.values())])


async def test_a_result_over_its_time_is_removed_and_its_job_is_expired(queue: Queue) -> None:
    job = await _done(queue)
    await _age(queue, job, hours=25)
    assert (await _sweep(queue)).results == 1
    assert (await queue.find(job)).state is JobState.EXPIRED
    assert await queue.files() == []
    assert (await _sweep(queue)) == Swept()


async def test_a_record_over_its_time_is_removed_with_its_files(queue: Queue) -> None:
    job = await _done(queue)
    await _age(queue, job, hours=169)
    assert (await _sweep(queue)).records == 1
    assert await work.find(queue.database, job.id) is None
    assert await queue.files() == []
    assert await queue.database.fetch("SELECT * FROM job_events") == []


async def test_files_without_a_job_are_removed_after_the_grace(queue: Queue) -> None:
    done = await _done(queue)
    left = [
        f"inputs/{uuid4()}/face_file",
        f"inputs/{done.id}/face_file",
        f"results/{uuid4()}/1.mp4",
        f"results/{done.id}/7.mp4",
        f"avatars/{uuid4()}",
    ]
    for key in left:
        await _put(queue, key)
    await _put(queue, "another/file")  # of another program
    assert await _sweep(queue, timedelta(hours=1)) == Swept()
    assert await _sweep(queue) == Swept(files=5)
    assert await queue.files() == ["another/file", f"results/{done.id}/1.mp4"]


async def test_the_inputs_of_a_job_that_ended_without_its_worker_are_removed(queue: Queue) -> None:
    job = await queue.submit()
    await end.cancel(queue.database, "", job.id)
    await _sweep(queue, timedelta(hours=1))
    assert await queue.files() == []
    assert await retention.ended_with_inputs(queue.database) == []


async def test_idempotency_keys_unused_faces_and_old_log_lines_are_removed(queue: Queue) -> None:
    await queue.submit(idempotency_key="old")
    await queue.submit(idempotency_key="new")
    faces = [uuid4(), uuid4(), uuid4()]
    used = await queue.submit(avatar=faces[2])
    for face, days in zip(faces, (31, 1, 31), strict=True):
        await _put(queue, f"avatars/{face}")
        await queue.database.fetch(
            """
            INSERT INTO avatars (id, tenant, file, file_bytes, face_type, used_at)
            VALUES (%s, '', jsonb_build_object('key', %s::text, 'size', 7, 'sha256', ''), 7, 'png', now() - %s)
            RETURNING 1
            """,
            face,
            f"avatars/{face}",
            timedelta(days=days),
        )
    await queue.database.fetch("UPDATE idempotency_keys SET expires_at = now() WHERE key = 'old' RETURNING 1")
    await queue.database.fetch("UPDATE pgqueuer_log SET created = created - interval '2 days' RETURNING 1")
    assert await _sweep(queue) == Swept(avatars=1)
    keys = await queue.database.fetch("SELECT key FROM idempotency_keys")
    assert [row["key"] for row in keys] == ["new"]
    kept = {row["id"] for row in await queue.database.fetch("SELECT id FROM avatars")}
    assert kept == {faces[1], used.avatar}
    assert [key for key in await queue.files() if key.startswith("avatars/")] == sorted(
        f"avatars/{face}" for face in faces[1:]
    )
    assert await queue.database.fetch("SELECT 1 FROM pgqueuer_log") == []


async def test_only_one_process_sweeps_at_a_time(queue: Queue) -> None:
    async with retention.only_sweep(queue.database) as alone:
        assert alone
        assert await sweep(queue.database, queue.store, queue.settings) is None
    assert await sweep(queue.database, queue.store, queue.settings) == Swept()


async def test_the_store_is_compared_once_an_hour(queue: Queue) -> None:
    await sweep(queue.database, queue.store, queue.settings)
    await _put(queue, f"inputs/{uuid4()}/face_file")
    assert await sweep(queue.database, queue.store, queue.settings, NOW) == Swept()
    await queue.database.fetch("UPDATE sweeps SET compared_at = now() - interval '1 hour' RETURNING 1")
    assert await sweep(queue.database, queue.store, queue.settings, NOW) == Swept(files=1)


async def test_nothing_is_left_of_a_job_whose_worker_was_killed_and_that_is_canceled(queue: Queue) -> None:
    job = await queue.submit()
    with worker_process(queue, stall="stored") as process:
        await asyncio.to_thread(process.stalls, "stored")
        process.end(signal.SIGKILL)
    await end.cancel(queue.database, "", job.id)
    await _sweep(queue)
    assert await queue.files() == []
    assert [path for path in (queue.folder / "store").rglob("*") if path.is_file()] == []
    async with queue.worker():  # which removes the work folder of the killed one when it starts
        pass
    assert not list((queue.folder / "work").iterdir())
    assert await queue.database.fetch("SELECT 1 FROM pgqueuer") == []
