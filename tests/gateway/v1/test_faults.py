"""What callers get when the store or the database fails in the middle, or when a URL leads to a private address."""

import os
from pathlib import Path

import httpx
import pytest

from embedded.errors import DatabaseEnded
from embedded.postgres import Postgres
from jobs.repository import submit as submit_module
from tests.gateway.v1.conftest import ServeJobs, files, service_v1
from tests.support.gateway_fakes import Serve, eventually, form
from tests.support.postgres import server_options


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://127.0.0.1/face.png", "face_url: the URL leads to an address that is not public"),
        ("http://93.184.216.34/face.png", "face_url: "),
        ("file:///etc/passwd", "face_url: "),
        ("https://user:hush@93.184.216.34/", "face_url: "),
        ("https://host.invalid/face.png", "face_url: "),
    ],
)
async def test_a_url_that_is_refused_is_a_400(jobs: httpx.AsyncClient, store: Path, url: str, detail: str) -> None:
    answer = await jobs.post("/v1/jobs", files=form(face_file=None, face_url=url))
    assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (400, detail)
    assert "hush" not in answer.text
    assert files(store) == []


async def test_a_store_that_fails_is_503_and_nothing_is_queued(
    jobs: httpx.AsyncClient, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jobs.folder._copy", full)
        answer = await jobs.post("/v1/jobs", files=form())
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "the service has a fault" in answer.json()["detail"]
    assert files(store) == []
    assert (await jobs.get("/v1/jobs")).json()["jobs"] == []


async def test_a_rejected_submission_leaves_no_file(
    jobs: httpx.AsyncClient, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is taken by another content between the first look and the transaction."""
    key = {"Idempotency-Key": "one"}
    await jobs.post("/v1/jobs", files=form(), headers=key)
    kept = files(store)

    async def finds_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr("gateway.v1.submission.find_by_key", finds_nothing)
    assert submit_module.find_by_key is not finds_nothing
    assert (await jobs.post("/v1/jobs", files=form(fps="30"), headers=key)).status_code == 409
    again = await jobs.post("/v1/jobs", files=form(), headers=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert files(store) == kept


async def test_a_database_that_is_killed_is_503_until_it_is_back(
    serve: Serve, database_folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.database.CONNECT_SECONDS", 3.0)
    options = server_options(database_folder)
    with Postgres(database_folder / "data", **options) as first:
        url = first.url
        async with serve(database_url=url, store=str(store), workers=0) as client:
            await eventually(lambda: service_v1(client).schema.ready)
            path = (await client.post("/v1/jobs", files=form())).headers["location"]
            os.kill(first.pid, 9)
            with pytest.raises(DatabaseEnded):
                first.wait(20)
            for answer in (await client.get(path), await client.post("/v1/jobs", files=form())):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert (await client.get("/health/ready")).json()["database_fault"]
            assert (await client.post("/", files=form())).status_code == 200
            with Postgres(database_folder / "data", **options) as second:
                assert second.url == url
                assert (await client.get(path)).json()["state"] == "queued"
                assert "database_fault" not in (await client.get("/health/ready")).json()


async def test_scripts_of_web_sites_may_read_the_headers(serve_jobs: ServeJobs) -> None:
    async with serve_jobs() as client:
        answer = await client.post("/v1/jobs", files=form(), headers={"Origin": "https://example.com"})
    exposed = answer.headers["access-control-expose-headers"]
    for name in ("Location", "Idempotency-Replayed", "Preference-Applied", "ETag", "Content-Range"):
        assert name in exposed
