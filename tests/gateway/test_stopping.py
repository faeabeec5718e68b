"""A gateway that is stopped: it drains, finishes what it has, refuses the rest, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from tests.support.gateway_fakes import FakeRender, contents, eventually, form, post

Start = Callable[..., Awaitable[Any]]


async def test_jobs_that_end_within_the_grace_period_send_their_response(live: Start, render: FakeRender) -> None:
    render.gate.clear()
    gateway = await live(shutdown_grace=30)
    running = asyncio.create_task(post(gateway.url))
    await render.reached(1)
    gateway.server.should_exit = True
    await eventually(lambda: gateway.jobs.closed)
    render.gate.set()
    assert (await running).content == b"a face|a speech"


async def test_a_stop_rejects_queued_jobs_and_ends_running_ones_after_the_grace_period(
    live: Start, render: FakeRender, work: Path
) -> None:
    render.gate.clear()
    gateway = await live(max_jobs=1, shutdown_grace=0.2)
    running = asyncio.create_task(post(gateway.url))
    await render.reached(1)
    waiting = asyncio.create_task(post(gateway.url))
    await eventually(lambda: gateway.jobs.queued == 1)
    gateway.server.should_exit = True
    for response in await asyncio.gather(waiting, running):
        assert (response.status_code, response.json()) == (503, {"detail": "the service is being stopped"})
        assert "retry-after" in response.headers
        assert response.headers["connection"] == "close"
    assert render.cancelled == 1
    await eventually(lambda: contents(work) == [])


async def test_a_form_that_a_stopped_gateway_refuses_is_answered_by_another_one(
    live: Start, render: FakeRender
) -> None:
    render.gate.clear()
    first, second = await live(max_jobs=1, shutdown_grace=60), await live(max_jobs=1)
    running = asyncio.create_task(post(first.url))
    await render.reached(1)
    waiting = asyncio.create_task(post(first.url))
    await eventually(lambda: first.jobs.queued == 1)
    first.server.should_exit = True
    refused = await waiting
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert "retry-after" in refused.headers
    again = asyncio.create_task(post(second.url))
    await render.reached(2)
    render.gate.set()
    for answer in await asyncio.gather(running, again):
        assert (answer.status_code, answer.content) == (200, b"a face|a speech")


async def test_a_second_signal_ends_running_jobs_at_once(live: Start, render: FakeRender) -> None:
    render.gate.clear()
    gateway = await live(shutdown_grace=3000)
    running = asyncio.create_task(post(gateway.url))
    await render.reached(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: gateway.jobs.closed)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGINT)
    assert (await running).status_code == 503
    assert render.cancelled == 1


async def test_a_gateway_that_stops_is_not_ready_and_rejects_forms(live: Start, render: FakeRender) -> None:
    render.gate.clear()
    gateway = await live(shutdown_grace=30)
    async with httpx.AsyncClient() as client:
        running = asyncio.create_task(post(gateway.url))
        await render.reached(1)
        gateway.jobs.close(grace=30)
        response = await client.get(f"{gateway.url}/health/ready")
        assert (response.status_code, response.json()["detail"]) == (503, "the service is being stopped")
        assert (await client.post(gateway.url, files=form())).status_code == 503
    render.gate.set()
    assert (await running).status_code == 200


async def test_a_gateway_that_drains_is_not_ready_and_accepts_forms_until_a_second_signal(
    live: Start, render: FakeRender
) -> None:
    render.gate.clear()
    gateway = await live(max_jobs=2, drain_seconds=600, shutdown_grace=600)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        before = asyncio.create_task(post(gateway.url))
        await render.reached(1)
        assert "connection" not in (await client.get(f"{gateway.url}/ping")).headers
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: gateway.jobs.draining)
        response = await client.get(f"{gateway.url}/health/ready")
        assert (response.status_code, response.json()["detail"]) == (503, "the service is being stopped")
        assert response.headers["connection"] == "close"  # the next request is for another gateway
        assert (await client.get(f"{gateway.url}/health/live")).status_code == 200
        later = asyncio.create_task(post(gateway.url))
        await render.reached(2)
        render.gate.set()
        for answer in await asyncio.gather(before, later):
            assert (answer.content, answer.headers["connection"]) == (b"a face|a speech", "close")
        assert not gateway.jobs.closed
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: gateway.jobs.closed)


async def test_an_answer_to_an_unread_form_leaves_the_connection_open_while_the_gateway_drains(
    live: Start, raw_form: bytes
) -> None:
    gateway = await live(max_upload_bytes=4, drain_seconds=600)
    gateway.jobs.drain()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_form[:-20])
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert head.startswith(b"HTTP/1.1 413") and b"connection: close" not in head.lower()
    writer.close()
    gateway.jobs.stopped.set()
