"""Progress goes from a worker to who watches the job, without a table."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from embedded.postgres import Postgres
from jobs.database import Database
from jobs.progress import CHANNEL, MIN_SECONDS, ProgressHub, ProgressPublisher
from jobs.records import Progress
from jobs.repository.rows import EVENTS_CHANNEL
from tests.support.media import until
from tests.support.postgres import server_options


@pytest.fixture
async def database(empty_database: str) -> AsyncIterator[Database]:
    async with Database(empty_database) as opened:
        yield opened


async def _connected(database: Database) -> None:
    async with asyncio.timeout(20):
        await database.connected.wait()


async def test_a_new_stage_is_published_at_once_and_frames_rarely(database: Database) -> None:
    received: list[dict[str, object]] = []
    database.listen(CHANNEL, lambda payload: received.append(json.loads(payload)))
    await _connected(database)
    job = uuid4()
    publisher = ProgressPublisher(database, job)
    loop = asyncio.get_running_loop()
    async with publisher.publishing():
        publisher.report(Progress("detect", 0, None))
        start = loop.time()
        done = 0
        while loop.time() < start + 2.5 * MIN_SECONDS:
            done += 1
            publisher.report(Progress("encode", done, 1000))
            await asyncio.sleep(0.005)
        publisher.report(Progress("store", 1000, 1000))
        await until(lambda: bool(received) and received[-1]["stage"] == "store")
    stages = [each["stage"] for each in received]
    assert 2 <= stages.count("encode") <= 4 < done
    assert received[-1] == {"job": str(job), "stage": "store", "done": 1000, "total": 1000}
    assert publisher.latest == Progress("store", 1000, 1000)


async def test_who_watches_a_job_gets_its_newest_progress_and_its_events(database: Database) -> None:
    job = uuid4()
    with ProgressHub(database) as hub, hub.subscribe(job) as changes, hub.subscribe(uuid4()) as others:
        await _connected(database)
        assert await changes.get() is None  # notifications may have been lost until now
        assert await others.get() is None
        for done in (1, 2):
            await _notify(database, CHANNEL, {"job": str(job), "stage": "encode", "done": done, "total": 9})
        await _notify(database, EVENTS_CHANNEL, {"job": str(job), "number": 7})
        await _notify(database, CHANNEL, {"job": "no id of ours"})
        async with asyncio.timeout(20):
            seen = [await changes.get()]
            while not (Progress("encode", 2, 9) in seen and None in seen):  # in any order
                seen.append(await changes.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await others.get()


async def _notify(database: Database, channel: str, payload: dict[str, object]) -> None:
    await database.fetch("SELECT pg_notify(%s, %s)", channel, json.dumps(payload))


async def test_a_foreign_notification_is_ignored(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with ProgressHub(database) as hub, hub.subscribe(UUID(int=0)) as changes:
        await _connected(database)
        await database.fetch("SELECT pg_notify(%s, %s)", CHANNEL, "no JSON")
        await until(lambda: "ignored" in caplog.text)
        await changes.get()
        await _notify(database, EVENTS_CHANNEL, {"job": str(UUID(int=0)), "number": 1})
        async with asyncio.timeout(20):
            assert await changes.get() is None  # the hub goes on
    assert "ignored a notification of another program: 'no JSON'" in caplog.text


async def test_who_watches_a_job_is_woken_when_the_database_is_back(database_folder: Path) -> None:
    with Postgres(database_folder / "data", **server_options(database_folder)) as server:
        async with Database(server.url) as database:
            with ProgressHub(database) as hub, hub.subscribe(uuid4()) as changes:
                await _connected(database)
                assert await changes.get() is None
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.to_thread(server.stop)
                waiting = asyncio.create_task(changes.get())
                await asyncio.sleep(0.1)
                assert not waiting.done()
                with Postgres(database_folder / "data", **server_options(database_folder)):
                    async with asyncio.timeout(30):
                        assert await waiting is None
