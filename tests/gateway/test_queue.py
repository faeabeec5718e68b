"""The job queue: at most N jobs run, others wait in order, the rest is rejected."""

import asyncio
from pathlib import Path

import httpx
import pytest

from avatar.errors import Busy, ShuttingDown
from avatar.resources.admission import Admission
from avatar.settings import MIN_JOBS
from tests.support.gateway_fakes import FakeRender, Serve, eventually, form, leftovers, service_of


def queued(client: httpx.AsyncClient) -> int:
    return service_of(client).jobs.queued


async def post(client: httpx.AsyncClient, face: bytes) -> bytes:
    response = await client.post("/", files=form(face_file=("face.png", face)))
    assert response.status_code == 200, response.text
    return response.content


async def test_concurrent_forms_do_not_mix(serve: Serve, render: FakeRender, work: Path) -> None:
    render.gate.clear()
    async with serve(max_jobs=8) as client:
        posts = [asyncio.create_task(post(client, b"%d" % number * 100_000)) for number in range(8)]
        await render.reached(8)
        assert len({request.folder for request in render.requests}) == 8
        render.gate.set()
        assert await asyncio.gather(*posts) == [b"%d" % number * 100_000 + b"|a speech" for number in range(8)]
        assert leftovers(work) == []


async def test_at_most_the_allowed_number_of_jobs_run_and_the_others_wait(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()
    async with serve(max_jobs=2) as client:
        posts = [asyncio.create_task(post(client, b"face")) for _ in range(7)]
        await eventually(lambda: queued(client) == 5)
        render.gate.set()
        await asyncio.gather(*posts)
    assert render.most_running == 2
    assert len(render.requests) == 7


async def test_by_default_a_short_form_does_not_wait_for_many_long_ones(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()
    async with serve(max_jobs_per_client=0) as client:
        posts = [asyncio.create_task(post(client, b"face")) for _ in range(MIN_JOBS)]
        await render.reached(MIN_JOBS)
        assert queued(client) == 0
        render.gate.set()
        await asyncio.gather(*posts)


async def test_a_request_over_the_limit_is_rejected_until_another_ends(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()
    async with serve(max_jobs=1, max_queued=1, max_jobs_per_client=0) as client:
        posts = [asyncio.create_task(post(client, b"face")) for _ in range(2)]
        await render.reached(1)
        await eventually(lambda: queued(client) == 1)
        response = await client.post("/", files=form())
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert response.json() == {"detail": "limit of 2 running and queued requests reached; try again later"}
        health = (await client.get("/health/live")).json()
        assert health == {"status": "live", "running": 1, "waiting": 1}
        render.gate.set()
        await asyncio.gather(*posts)
        assert (await client.post("/", files=form())).status_code == 200


async def test_jobs_run_in_the_order_of_their_requests() -> None:
    jobs, order = Admission(1, 10), []

    async def work(number: int) -> None:
        async with jobs.slot():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert (jobs.running, jobs.queued) == (0, 0)


async def test_a_cancelled_job_leaves_the_queue_and_the_others_still_run() -> None:
    jobs = Admission(1, 10)
    done = asyncio.Event()

    async def work() -> None:
        async with jobs.slot():
            await done.wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await eventually(lambda: jobs.queued == 2)
    tasks[1].cancel()
    await eventually(lambda: jobs.queued == 1)
    done.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert (jobs.running, jobs.queued) == (0, 0)


async def test_the_slot_of_a_job_that_is_cancelled_before_it_runs_passes_to_the_next_job() -> None:
    jobs = Admission(1, 10)
    first = jobs.slot()
    await first.__aenter__()

    async def work() -> None:
        async with jobs.slot():
            pass

    second, third = asyncio.create_task(work()), asyncio.create_task(work())
    await eventually(lambda: jobs.queued == 2)
    await first.__aexit__(None, None, None)  # the slot now belongs to the second job,
    second.cancel()  # which is cancelled before it runs
    await asyncio.wait_for(third, 10)
    assert second.cancelled() or second.cancelling()
    assert (jobs.running, jobs.queued) == (0, 0)


async def test_an_admission_is_released_however_the_request_ends() -> None:
    jobs = Admission(1, 0)
    with pytest.raises(ValueError, match="went wrong"), jobs.admit():
        raise ValueError("went wrong")
    with jobs.admit(), pytest.raises(Busy), jobs.admit():
        pass


async def test_closing_rejects_queued_jobs_and_ends_running_ones_after_the_grace_period() -> None:
    jobs = Admission(1, 10)
    async with jobs.slot():
        waiting = asyncio.create_task(jobs.slot().__aenter__())
        await eventually(lambda: jobs.queued == 1)
        jobs.close(grace=0.05)
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown), jobs.admit():
            pass
        with pytest.raises(ShuttingDown):
            await jobs.slot().__aenter__()
        assert not jobs.stopped.is_set()
        await asyncio.wait_for(jobs.stopped.wait(), 10)
