"""With API keys: every owner sees its own jobs and faces only, and has limits and priorities."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.v1.conftest import ServeJobs, files
from tests.support.api_keys import add_key
from tests.support.gateway_fakes import form
from tests.support.media import write_still


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
async def client(serve_jobs: ServeJobs, keys: Path) -> AsyncIterator[httpx.AsyncClient]:
    add_key(keys, "nobody")
    async with serve_jobs(api_keys=keys) as client:
        yield client


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **headers}


async def test_jobs_and_faces_are_visible_to_their_owner_only(
    client: httpx.AsyncClient, keys: Path, tmp_path: Path
) -> None:
    mine, other = bearer(add_key(keys, "mine")), bearer(add_key(keys, "other"))
    job = (await client.post("/v1/jobs", files=form(), headers=mine)).headers["location"]
    face = write_still(tmp_path / "face.png").read_bytes()
    avatar = (await client.post("/v1/avatars", files={"face_file": face}, headers=mine)).headers["location"]
    for path in (job, f"{job}/events", f"{job}/result", avatar):
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=other)).status_code == 404
    for path in (job, avatar):
        assert (await client.delete(path, headers=other)).status_code == 404
        assert (await client.get(path, headers=mine)).status_code == 200
    assert (await client.get("/v1/jobs", headers=other)).json()["jobs"] == []
    assert (await client.get("/v1/avatars", headers=other)).json()["avatars"] == []
    identity = avatar.rpartition("/")[2]
    theirs = await client.post("/v1/jobs", files=form(face_file=None, avatar=identity), headers=other)
    assert (theirs.status_code, theirs.json()) == (
        404,
        {"detail": "there is no such avatar", "code": "avatar_not_found"},
    )


async def test_the_same_key_of_two_owners_makes_two_jobs(client: httpx.AsyncClient, keys: Path) -> None:
    answers = [
        await client.post("/v1/jobs", files=form(), headers=bearer(add_key(keys, name), **{"Idempotency-Key": "one"}))
        for name in ("mine", "other")
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] != answers[1].json()["id"]


async def test_a_limit_is_429_and_leaves_no_file_but_a_repetition_is_answered(
    client: httpx.AsyncClient, keys: Path, store: Path
) -> None:
    key = add_key(keys, "mine", "--queued", "1")
    first = await client.post("/v1/jobs", files=form(), headers=bearer(key, **{"Idempotency-Key": "one"}))
    assert first.status_code == 202
    kept = files(store)
    for headers in (bearer(key), bearer(key, **{"Idempotency-Key": "two"})):
        answer = await client.post("/v1/jobs", files=form(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
        assert "retry-after" in answer.headers
    assert files(store) == kept
    again = await client.post("/v1/jobs", files=form(), headers=bearer(key, **{"Idempotency-Key": "one"}))
    assert (again.status_code, again.json()) == (202, first.json())


async def test_a_key_may_be_for_one_priority(client: httpx.AsyncClient, keys: Path, store: Path) -> None:
    key = bearer(add_key(keys, "mine", "--priority", "batch"))
    answer = await client.post("/v1/jobs", files=form(), headers=key)
    assert (answer.status_code, answer.json()["detail"][:9]) == (403, "priority:")
    assert files(store) == []
    assert (await client.post("/v1/jobs", files=form(priority="batch"), headers=key)).status_code == 202
