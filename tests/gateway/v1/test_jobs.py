"""GET and DELETE of /v1/jobs, and what they answer without a database."""

from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.gateway.v1.conftest import ServeJobs, files
from tests.support.gateway_fakes import Serve, eventually, form, service_of

SOME_ID = "00000000-0000-4000-8000-000000000000"  # the workers of pytest-xdist have to collect the same names
CALLS = [
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", f"/v1/jobs/{SOME_ID}"),
    ("DELETE", f"/v1/jobs/{SOME_ID}"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_without_a_database_every_call_says_so(serve: Serve, method: str, path: str) -> None:
    async with serve() as client:
        answer = await client.request(method, path)
        assert answer.status_code == 501
        assert "AVATAR_DATABASE_URL" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_while_the_database_is_away_every_call_is_503(
    serve: Serve, tmp_path: Path, method: str, path: str
) -> None:
    url = f"postgresql:///none?host={tmp_path}&user=none"
    async with serve(database_url=url, store=str(tmp_path / "store")) as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "the database does not answer" in answer.json()["detail"]
        assert (await client.post("/", files=form())).status_code == 200


async def test_an_empty_database_gets_its_tables(serve: Serve, empty_database: str, tmp_path: Path) -> None:
    async with serve(database_url=empty_database, store=str(tmp_path / "store"), workers=0) as client:
        v1 = service_of(client).v1
        assert v1 is not None
        await eventually(lambda: v1.schema.ready)
        assert (await client.post("/v1/jobs", files=form())).status_code == 202
        assert "database_fault" not in (await client.get("/health/ready")).json()


async def test_readiness_names_a_store_that_fails(serve_jobs: ServeJobs, store: Path) -> None:
    async with serve_jobs() as client:
        (store / "checks").write_bytes(b"a file where a folder should be")
        ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["store_fault"]) == (200, "the store reports an error")


async def test_unknown_ids_and_other_texts_are_404(jobs: httpx.AsyncClient) -> None:
    for path in (f"/v1/jobs/{uuid4()}", "/v1/jobs/1"):
        for answer in (await jobs.get(path), await jobs.delete(path)):
            assert (answer.status_code, answer.json()) == (
                404,
                {"detail": "there is no such job", "code": "job_not_found"},
            )


async def test_a_queued_job_is_canceled_and_then_removed(jobs: httpx.AsyncClient, store: Path) -> None:
    path = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    canceled = await jobs.delete(path)
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert canceled.json()["finished_at"] is not None
    assert files(store) == []
    assert (await jobs.get(path)).json() == canceled.json()
    kept = await jobs.delete(f"{path}?remove=false")
    assert (kept.status_code, kept.json()) == (200, canceled.json())
    removed = await jobs.delete(path)
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await jobs.get(path)).status_code == 404


async def test_a_caller_that_only_cancels_does_not_remove_a_job_that_has_ended(jobs: httpx.AsyncClient) -> None:
    path = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    first = await jobs.delete(path, params={"remove": "false"})
    again = await jobs.delete(path, params={"remove": "false"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["state"] == again.json()["state"] == "canceled"
    assert (await jobs.get(path)).status_code == 200


async def test_the_list_has_pages_and_states(jobs: httpx.AsyncClient) -> None:
    made = [(await jobs.post("/v1/jobs", files=form())).json()["id"] for _ in range(5)]
    await jobs.delete(f"/v1/jobs/{made[1]}")
    seen: list[str] = []
    parameters = {"limit": "2"}
    for size in (2, 2, 1):
        page = (await jobs.get("/v1/jobs", params=parameters)).json()
        assert len(page["jobs"]) == size
        seen += [job["id"] for job in page["jobs"]]
        parameters["cursor"] = page["next"]
    assert page["next"] is None
    assert seen == made[::-1]
    canceled = (await jobs.get("/v1/jobs?state=canceled")).json()
    assert [job["id"] for job in canceled["jobs"]] == [made[1]]
    queued = (await jobs.get("/v1/jobs?state=queued&limit=4")).json()
    assert (len(queued["jobs"]), queued["next"]) == (4, None)


async def test_an_invalid_parameter_is_named(jobs: httpx.AsyncClient) -> None:
    details = {
        "limit=0": "limit: input should be greater than or equal to 1",
        "limit=many": "limit: input should be a valid integer",
        "state=done": "state: input should be 'queued', 'running'",
        "cursor=%C3%BC": "cursor: not a cursor of this service",
        "cursor=YWJj": "cursor: not a cursor of this service",
    }
    for query, detail in details.items():
        answer = await jobs.get(f"/v1/jobs?{query}")
        assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (400, detail)


async def test_the_place_counts_the_jobs_before(serve_jobs: ServeJobs) -> None:
    async with serve_jobs() as client:
        places = [(await client.post("/v1/jobs", files=form())).json()["place"] for _ in range(3)]
        assert places == [1, 2, 3]


async def test_the_metrics_name_the_route_and_not_the_job(jobs: httpx.AsyncClient) -> None:
    path = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    await jobs.get(path)
    text = (await jobs.get("/metrics")).text
    assert 'avatar_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in text
    assert path not in text
