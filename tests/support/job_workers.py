"""Helpers for the tests of workers: jobs to submit, workers in this process, and workers as processes that stall."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from avatar.resources.workspace import Workspace
from jobs.database import Database
from jobs.net.client import UrlClient
from jobs.records import Job, JobState, StoredFile, Submission
from jobs.repository import submit, work
from jobs.settings import WorkerSettings
from jobs.store import Store
from jobs.worker import Worker
from tests.support.gateway_fakes import FakeRender, ReadyModels

ROOT = Path(__file__).parents[2]
STEPS = ("fetching", "rendering", "storing", "stored")
LEASE = 1.0  # seconds; heartbeats every quarter of it
PROCESS_SECONDS = 60.0  # for a process to import and to reach its step, and for it to end; on a busy machine
FORM = {"avatarFileType": "png", "background": "From Input"}


@dataclass
class Queue:
    """A database and a store for jobs, and what their workers need."""

    database: Database
    store: Store
    settings: WorkerSettings
    folder: Path
    render: FakeRender = field(default_factory=FakeRender)
    models: ReadyModels = field(default_factory=ReadyModels)

    async def submit(self, face: bytes = b"face", speech: bytes = b"speech", **changes: Any) -> Job:
        """Submit a job with its files."""
        identity = uuid.uuid4()
        inputs = {}
        for name, content in (("face_file", face), ("audio_file", speech)):
            key = f"inputs/{identity}/{name}"
            assert self.store.folder is not None
            path = self.store.folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)  # in place of put_file, which waits for the disk
            inputs[name] = StoredFile(key, len(content), "")
        values: dict[str, Any] = {"form": FORM, "digest": "-", "inputs": inputs, **changes}
        job, _ = await submit.submit(self.database, Submission(identity, **values), timedelta(hours=1))
        return job

    async def find(self, job: Job) -> Job:
        """Return the job as the database has it now."""
        found = await work.find(self.database, job.id)
        assert found is not None
        return found

    async def reaches(self, job: Job, *states: JobState, stage: str | None = None, seconds: float = 30) -> Job:
        """Return the job as soon as it is in one of these states, in any final one by default, and in this stage."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.find(job)
                if (found.state in states or (not states and found.state.is_final)) and stage in (None, found.stage):
                    return found
                await asyncio.sleep(0.02)

    async def video(self, job: Job) -> bytes:
        """Return the result of a job that has succeeded."""
        found = await self.find(job)
        assert found.result is not None, found
        path = self.folder / f"{job.id}-video"
        await self.store.fetch_file(found.result.file.key, path)
        return path.read_bytes()

    async def files(self) -> list[str]:
        """Return the keys of all files in the store."""
        return sorted([blob.key async for blob in self.store.list()])

    @asynccontextmanager
    async def worker(self, slots: int = 2, **arguments: Any) -> AsyncIterator[Worker]:
        """Run a worker in this process within the block; at the end it gives its jobs back."""
        workspace = Workspace(self.settings.work_dir)
        workspace.open()
        async with UrlClient(self.settings.url_rules) as urls:
            values: dict[str, Any] = {"slots": slots, "retry_pause": 0.1, **arguments}
            render: Any = self.render
            worker = Worker(self.database, self.store, urls, self.models, render, self.settings, workspace, **values)
            task = asyncio.create_task(worker.run())
            try:
                yield worker
                worker.stop(0)
                async with asyncio.timeout(20):
                    await task
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                workspace.close()


@asynccontextmanager
async def open_queue(url: str, folder: Path, **changes: Any) -> AsyncIterator[Queue]:
    """Open a queue whose files are in `folder`; `changes` are settings."""
    (folder / "work").mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "database_url": SecretStr(url),
        "store": str(folder / "store"),
        "work_dir": folder / "work",
        "job_lease": LEASE,
        **changes,
    }
    settings = WorkerSettings(**values)
    async with Database(url) as database:
        yield Queue(database, Store.open(settings.store), settings, folder)


@dataclass
class WorkerProcess:
    """A worker in a process of its own."""

    process: "subprocess.Popen[bytes]"
    marks: Path  # a folder: a file of the name of a step appears when the worker stalls there
    log: Path

    def stalls(self, step: str) -> None:
        """Return when the worker has reached the step at which it stalls."""
        end = time.monotonic() + PROCESS_SECONDS
        while not (self.marks / step).exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def end(self, signal_number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(signal_number)
        return self.process.wait(PROCESS_SECONDS)


@contextmanager
def worker_process(queue: Queue, stall: str = "", **environment: str) -> Iterator[WorkerProcess]:
    """Run a worker with the settings of the queue in a process of its own. It stalls for good at the step `stall`."""
    name = uuid.uuid4().hex[:8]
    marks = queue.folder / f"marks-{name}"
    marks.mkdir()
    log = queue.folder / f"worker-{name}.log"
    settings = queue.settings
    assert settings.database_url is not None
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stalling_worker", str(marks), stall],
            cwd=ROOT,
            env={
                **os.environ,
                "AVATAR_DATABASE_URL": settings.database_url.get_secret_value(),
                "AVATAR_STORE": settings.store,
                "AVATAR_WORK_DIR": str(settings.work_dir),
                "AVATAR_JOB_LEASE": str(settings.job_lease),
                "AVATAR_JOB_ATTEMPTS": str(settings.job_attempts),
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield WorkerProcess(process, marks, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
