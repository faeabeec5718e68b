"""The gateway runs jobs in its own process: from the form to the video, its failure, and the stop."""

import asyncio
from pathlib import Path

import pytest

from avatar.errors import FaceNotFound
from jobs.database import Database
from jobs.records import JobState
from jobs.repository import read
from tests.gateway.v1.conftest import ServeJobs, ended, files, identity, service_v1
from tests.support.gateway_fakes import FakeRender, form


async def test_a_job_runs_and_its_video_is_fetched(serve_jobs: ServeJobs, store: Path) -> None:
    async with serve_jobs(workers=1) as client:
        path = (await client.post("/v1/jobs", files=form())).headers["location"]
        view = await ended(client, path)
        assert (view["state"], view["attempts"], view["result"]["frames"]) == ("succeeded", 1, 3)
        assert view["expires_at"]
        answer = await client.get(view["result"]["url"])
        assert (answer.status_code, answer.content) == (200, b"a face|a speech")
        assert answer.headers["etag"] == f'"{view["result"]["sha256"]}"'
        assert (await client.delete(path)).status_code == 204
    assert files(store) == []


async def test_a_job_fails_with_the_sentence_of_the_form(serve_jobs: ServeJobs, render: FakeRender) -> None:
    render.error = FaceNotFound()
    async with serve_jobs(workers=1) as client:
        path = (await client.post("/v1/jobs", files=form())).headers["location"]
        view = await ended(client, path)
        sentence = (await client.post("/", files=form())).json()["detail"]
        assert view["error"] == {"code": "face_not_found", "detail": sentence, "status": 400}


async def test_a_running_job_is_canceled_within_a_second(serve_jobs: ServeJobs, render: FakeRender) -> None:
    render.gate.clear()
    async with serve_jobs(workers=1) as client:
        path = (await client.post("/v1/jobs", files=form())).headers["location"]
        await render.reached(1)
        assert (await client.get(path)).json()["state"] == "running"
        assert (await client.delete(path)).json()["state"] == "canceled"
        await render.reached(0)
        assert render.cancelled == 1
        assert (await client.get(path)).json()["state"] == "canceled"


async def test_forms_and_jobs_share_the_places(serve_jobs: ServeJobs, render: FakeRender) -> None:
    render.gate.clear()
    async with serve_jobs(workers=2, max_jobs=2) as client:
        waiting = asyncio.create_task(client.post("/", files=form()))
        paths = [(await client.post("/v1/jobs", files=form())).headers["location"] for _ in range(3)]
        await render.reached(2)
        render.gate.set()
        assert (await waiting).status_code == 200
        for path in paths:
            assert (await ended(client, path))["state"] == "succeeded"
    assert render.most_running == 2


@pytest.mark.parametrize("grace", [0.0, 60.0])
async def test_a_stop_finishes_the_job_within_the_grace_or_gives_it_back(
    serve_jobs: ServeJobs, render: FakeRender, database: Database, grace: float
) -> None:
    render.gate.clear()
    async with serve_jobs(workers=1) as client:
        v1 = service_v1(client)
        answer = await client.post("/v1/jobs", files=form())
        await render.reached(1)
        v1.close(grace)
        if grace:
            render.gate.set()
    job = await read.get(database, "", identity(answer))
    assert job.state is (JobState.SUCCEEDED if grace else JobState.QUEUED)
    assert job.given_back == (0 if grace else 1)
