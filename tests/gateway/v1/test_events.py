"""GET /v1/jobs/{id}/events over a real connection: states, progress, resuming, and the end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jobs.database import Database
from jobs.progress import ProgressPublisher
from jobs.records import Progress
from tests.gateway.conftest import Live
from tests.gateway.v1.conftest import succeed, take
from tests.support.gateway_fakes import form

Start = Callable[..., Awaitable[Live]]


@dataclass(frozen=True)
class Event:
    kind: str
    data: dict[str, Any]
    id: str


class Stream:
    """The events of an open stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Event | None:
        """Return the next event, or None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(30):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                elif "data" in fields:
                    return Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                else:
                    fields = {}
        return None

    async def rest(self) -> list[Event]:
        events = []
        while event := await self.next():
            events.append(event)
        return events


@pytest.fixture
async def gateway(live: Start, database_url: str, store: Path) -> Live:
    gateway = await live(database_url=database_url, store=str(store), workers=0, shutdown_grace=60)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        while (await client.get("/v1/jobs")).status_code != 200:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)
    return gateway


@pytest.fixture
async def client(gateway: Live) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        yield client


@asynccontextmanager
async def watching(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncIterator[Stream]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", f"{path}/events", headers=given) as answer:
        yield Stream(answer)


async def submitted(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/jobs", files=form())).headers["location"])


async def test_a_stream_shows_states_and_progress_and_ends_after_the_final_state(
    client: httpx.AsyncClient, database: Database, store: Path
) -> None:
    path = await submitted(client)
    async with watching(client, path) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.answer.headers["cache-control"] == "no-store"
        queued = await stream.next()
        assert queued and (queued.kind, queued.data["state"]) == ("state", "queued")
        lease = await take(database)
        running = await stream.next()
        assert running and (running.data["state"], running.data["attempt"]) == ("running", 1)
        publisher = ProgressPublisher(database, lease.job.id)
        async with publisher.publishing():
            publisher.report(Progress("encode", 2, 10))
            progress = await stream.next()
        data = {"stage": "encode", "frames_done": 2, "frames_total": 10}
        assert progress == Event("progress", data, "")
        await succeed(database, store, lease, b"video")
        end = await stream.rest()
    assert [event.data["state"] for event in end] == ["succeeded"]
    assert int(queued.id) < int(running.id) < int(end[0].id)


@pytest.mark.parametrize("in_query", [False, True])
async def test_a_stream_is_resumed_after_the_last_event(
    client: httpx.AsyncClient, database: Database, store: Path, in_query: bool
) -> None:
    path = await submitted(client)
    async with watching(client, path) as stream:
        first = await stream.next()
    assert first
    await succeed(database, store, await take(database), b"video")
    events = f"{path}/events"
    if in_query:
        answer = await client.get(events, params={"last_event_id": first.id})
    else:
        answer = await client.get(events, headers={"Last-Event-ID": first.id})
    states = [line for line in answer.text.splitlines() if line.startswith("data")]
    assert states[0].startswith('data: {"state": "running"')
    assert answer.text.count("event: state") == 2
    last = [line.removeprefix("id: ") for line in answer.text.splitlines() if line.startswith("id: ")][-1]
    after = await client.get(events, headers={"Last-Event-ID": last})
    assert (after.status_code, after.content) == (204, b"")


async def test_canceling_ends_the_stream_at_once(client: httpx.AsyncClient) -> None:
    path = await submitted(client)
    async with watching(client, path) as stream:
        await stream.next()
        start = time.monotonic()
        await client.delete(path)
        assert [event.data["state"] for event in await stream.rest()] == ["canceled"]
        assert time.monotonic() - start < 5


async def test_removing_the_job_ends_the_stream(
    client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.v1.events.POLL_SECONDS", 0.1)
    path = await submitted(client)
    async with watching(client, path) as stream:
        await stream.next()
        await database.fetch("DELETE FROM jobs RETURNING 1")
        assert await stream.rest() == []


async def test_wrong_ids_are_rejected(client: httpx.AsyncClient) -> None:
    path = await submitted(client)
    for wrong in ("x", "-1", "9" * 30):
        answer = await client.get(f"{path}/events", headers={"Last-Event-ID": wrong})
        assert (answer.status_code, answer.json()) == (
            400,
            {"detail": "Last-Event-ID: expected the id of an event of this stream", "code": "invalid_field"},
        )
    assert (await client.get(f"/v1/jobs/{uuid4()}/events")).status_code == 404


async def test_head_has_no_stream(client: httpx.AsyncClient) -> None:
    answer = await client.head(f"{await submitted(client)}/events")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_open_stream_does_not_hold_the_stop(client: httpx.AsyncClient, gateway: Live) -> None:
    path = await submitted(client)
    async with watching(client, path) as stream:
        await stream.next()
        gateway.server.should_exit = True
        assert await stream.rest() == []
