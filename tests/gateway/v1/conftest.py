"""Fixtures: a gateway with a real PostgreSQL and a real folder as the store, and a fake render."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from gateway.job_service import JobService
from jobs.database import Database
from jobs.records import JobResult, StoredFile
from jobs.repository import leases
from jobs.repository.leases import Lease
from tests.support.gateway_fakes import Serve, eventually, service_of

ServeJobs = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of the store."""
    return tmp_path / "store"


@pytest.fixture
def serve_jobs(serve: Serve, database_url: str, store: Path) -> ServeJobs:
    """`async with serve_jobs() as client`: a gateway that takes jobs in, with no worker unless a test asks for one."""

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        options = {"database_url": database_url, "store": str(store), "workers": 0} | settings
        async with serve(**options) as client:
            v1 = service_v1(client)
            await eventually(lambda: v1.schema.ready)
            yield client

    return serving


@pytest.fixture
async def jobs(serve_jobs: ServeJobs) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway without workers."""
    async with serve_jobs() as client:
        yield client


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


def files(store: Path) -> list[str]:
    """Return the keys of all files in the store."""
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


def identity(answer: httpx.Response) -> UUID:
    return UUID(answer.json()["id"])


WORKER = uuid4()
LEASE = timedelta(seconds=20)


async def take(database: Database) -> Lease:
    """Take the next job, as a worker does."""
    lease = await leases.claim(database, WORKER, LEASE, 3)
    assert lease is not None
    return lease


async def succeed(database: Database, store: Path, lease: Lease, video: bytes) -> None:
    """End the job with this video, as a worker does."""
    key = f"results/{lease.job.id}/{lease.job.attempt}.mp4"
    path = store / key
    path.parent.mkdir(parents=True)
    path.write_bytes(video)
    file = StoredFile(key, len(video), hashlib.sha256(video).hexdigest())
    result = JobResult(file, "mp4", frames=3, fps=25.0, duration=0.12, without_face=0)
    await leases.succeed(database, lease, result, timedelta(hours=1))


def service_v1(client: httpx.AsyncClient) -> JobService:
    v1 = service_of(client).v1
    assert v1 is not None
    return v1


async def ended(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Return a job when it has ended."""
    async with asyncio.timeout(30):
        while True:
            view: dict[str, Any] = (await client.get(path)).json()
            if view["finished_at"]:
                return view
            await asyncio.sleep(0.05)
