"""GET /v1/jobs/{id}/result: ranges, ETags, and what is answered where there is no video."""

import hashlib
from pathlib import Path

import httpx
import pytest

from gateway.v1.ranges import Unsatisfiable, parse_range
from jobs.database import Database
from jobs.records import JobError
from jobs.repository import leases
from tests.gateway.v1.conftest import files, succeed, take
from tests.support.gateway_fakes import form

VIDEO = bytes(range(256)) * 10
ETAG = f'"{hashlib.sha256(VIDEO).hexdigest()}"'


@pytest.fixture
async def path(jobs: httpx.AsyncClient, database: Database, store: Path) -> str:
    """The path of the result of a job that has succeeded."""
    location = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    await succeed(database, store, await take(database), VIDEO)
    return f"{location}/result"


async def test_the_video_comes_with_its_hash_and_its_name(jobs: httpx.AsyncClient, path: str) -> None:
    answer = await jobs.get(path)
    assert (answer.status_code, answer.content) == (200, VIDEO)
    identity = path.split("/")[3]
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(VIDEO))
    assert answer.headers["content-disposition"] == f'attachment; filename="{identity}.mp4"'
    assert (answer.headers["etag"], answer.headers["accept-ranges"]) == (ETAG, "bytes")
    view = (await jobs.get(path.removesuffix("/result"))).json()
    assert view["state"] == "succeeded"
    assert (view["result"]["url"], view["result"]["size"]) == (path, len(VIDEO))
    assert f'"{view["result"]["sha256"]}"' == ETAG


async def test_head_has_the_same_headers(jobs: httpx.AsyncClient, path: str) -> None:
    get, head = await jobs.get(path), await jobs.head(path)
    assert (head.status_code, head.content) == (200, b"")
    ours = ("content-length", "content-type", "etag", "accept-ranges", "content-disposition", "cache-control")
    assert {name: head.headers[name] for name in ours} == {name: get.headers[name] for name in ours}


async def test_a_range_is_answered_with_its_bytes(jobs: httpx.AsyncClient, path: str) -> None:
    ranges = {"bytes=0-9": (0, 10), "bytes=100-": (100, 2560), "bytes=-10": (2550, 2560)}
    ranges |= {"bytes=2500-9999": (2500, 2560)}
    for header, (start, end) in ranges.items():
        answer = await jobs.get(path, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, VIDEO[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/2560"
        assert answer.headers["content-length"] == str(end - start)


async def test_a_range_outside_is_416(jobs: httpx.AsyncClient, path: str) -> None:
    for header in ("bytes=2560-", "bytes=9999-10000", "bytes=-0"):
        answer = await jobs.get(path, headers={"Range": header})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */2560")
        assert answer.json()["detail"] == "Range: the video has 2560 bytes, and none of this range"
        assert answer.json()["code"] == "range_not_satisfiable"


async def test_a_range_that_is_not_understood_is_ignored(jobs: httpx.AsyncClient, path: str) -> None:
    for header in ("frames=0-1", "bytes=", "bytes=-", "bytes=5-1", "bytes=0-1,5-6", "bytes=a-b"):
        answer = await jobs.get(path, headers={"Range": header})
        assert (answer.status_code, len(answer.content)) == (200, len(VIDEO))


async def test_conditions(jobs: httpx.AsyncClient, path: str) -> None:
    for known in (ETAG, f"W/{ETAG}", f'"a", {ETAG}', "*"):
        answer = await jobs.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", ETAG)
    assert (await jobs.get(path, headers={"If-None-Match": '"a"'})).status_code == 200
    assert (await jobs.get(path, headers={"Range": "bytes=0-1", "If-Range": ETAG})).status_code == 206
    assert (await jobs.get(path, headers={"Range": "bytes=0-1", "If-Range": '"a"'})).status_code == 200


async def test_before_the_end_there_is_no_result(jobs: httpx.AsyncClient, database: Database) -> None:
    location = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    for state in ("queued", "running"):
        answer = await jobs.get(f"{location}/result")
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "2")
        assert answer.json()["detail"] == f"the job is {state}; its result is there when it is succeeded"
        if state == "queued":
            await take(database)


async def test_a_failed_job_answers_with_the_sentence_of_the_form(jobs: httpx.AsyncClient, database: Database) -> None:
    location = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    sentence = "Face not detected! Ensure the video contains a face in all the frames."
    await leases.fail(database, await take(database), JobError("face_not_found", sentence, 400))
    answer = await jobs.get(f"{location}/result")
    assert (answer.status_code, answer.json()["detail"]) == (410, f"the job failed, and has no result: {sentence}")
    view = (await jobs.get(location)).json()
    assert view["error"] == {"code": "face_not_found", "detail": sentence, "status": 400}


async def test_a_canceled_job_and_a_result_that_is_removed_are_gone(
    jobs: httpx.AsyncClient, path: str, store: Path
) -> None:
    location = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    await jobs.delete(location)
    answer = await jobs.get(f"{location}/result")
    assert (answer.status_code, answer.json()["detail"]) == (410, "the job was canceled, and has no result")
    for file in files(store):
        (store / file).unlink()
    answer = await jobs.get(path)
    assert (answer.status_code, answer.json()["detail"]) == (410, "the result was removed")


async def test_a_finished_job_is_removed_with_its_files(jobs: httpx.AsyncClient, path: str, store: Path) -> None:
    assert len(files(store)) == 3
    assert (await jobs.delete(path.removesuffix("/result"))).status_code == 204
    assert files(store) == []
    assert (await jobs.get(path)).status_code == 404


def test_ranges() -> None:
    assert parse_range(None, None, ETAG, 10) is None
    assert parse_range("bytes=-20", None, ETAG, 10) == (0, 10)
    assert parse_range("Bytes = 9 - 9", None, ETAG, 10) == (9, 10)
    with pytest.raises(Unsatisfiable):
        parse_range("bytes=10-", None, ETAG, 10)
