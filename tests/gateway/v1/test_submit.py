"""POST /v1/jobs: a job is taken in at once, and every invalid field is an error before anything is queued."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from avatar.form.parse import SEND_A_FILE
from jobs.database import Database
from jobs.records import JobClass
from jobs.repository import read
from tests.gateway.conftest import Live
from tests.gateway.v1.conftest import ServeJobs, files, identity
from tests.support.gateway_fakes import Serve, form

PUBLIC = {"face_url": "https://93.184.216.34/face.png", "audio_url": "https://93.184.216.34/speech.wav"}
JSON = {**PUBLIC, "avatarFileType": "png", "background": "From Input"}


async def test_a_form_becomes_a_queued_job_with_its_files_in_the_store(
    jobs: httpx.AsyncClient, store: Path, database: Database
) -> None:
    answer = await jobs.post("/v1/jobs", files=form(priority="batch", fps="30"))
    assert answer.status_code == 202
    view = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{view['id']}"
    assert (view["state"], view["priority"], view["place"], view["attempts"]) == ("queued", "batch", 1, 0)
    assert files(store) == [f"inputs/{view['id']}/{name}" for name in ("audio_file", "face_file")]
    assert (store / f"inputs/{view['id']}/face_file").read_bytes() == b"a face"
    job = await read.get(database, "", identity(answer))
    assert job.form == {"avatarFileType": "png", "background": "From Input", "fps": "30"}
    assert job.job_class is JobClass.BATCH
    assert job.inputs["face_file"].size == len(b"a face")
    assert (await jobs.get(answer.headers["location"])).json() == view


INVALID: list[tuple[dict[str, Any], int, str]] = [
    ({"face_file": None}, 400, "face_file: missing; send face_file or face_url or avatar"),
    ({"audio_file": None}, 400, "audio_file: missing; send audio_file or audio_url"),
    ({"face_file": ("face.png", b"")}, 400, "face_file: the file is empty"),
    ({"face_file": "text"}, 400, f"face_file: {SEND_A_FILE}"),
    ({"background_file": "text"}, 400, f"background_file: {SEND_A_FILE}"),
    ({"face_url": "https://example.com/face"}, 400, "face_file: there is more than one source"),
    ({"background": "Purple"}, 400, "background: 'Purple' is not one of"),
    ({"fps": "1000"}, 400, "fps: expected"),
    ({"avatarFileType": "p\0g"}, 400, "avatarFileType: the text has characters that are not allowed"),
    ({"priority": "high"}, 400, "priority: expected interactive or batch"),
    ({"face_file": None, "avatar": "me"}, 400, "avatar: expected the id of a face"),
    ({"webhook_events": "job.failed"}, 400, "webhook_events: there is no webhook"),
    ({"webhook": "https://example.com", "webhook_events": "all"}, 400, "webhook_events: expected events of"),
    ({"webhook": "https://example.com/"}, 400, "webhook: this service sends no webhooks"),
    ({"webhook": "https://example.com/" + "x" * 8200}, 400, "webhook: the value is longer than 8192 bytes"),
    ({"fps": ("fps.txt", b"25")}, 400, "fps: send text here, not a file"),
]


async def test_an_invalid_field_is_named_and_nothing_is_queued(jobs: httpx.AsyncClient, store: Path) -> None:
    for changes, status, detail in INVALID:
        answer = await jobs.post("/v1/jobs", files=form(**changes))
        assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (status, detail)
    assert files(store) == []
    assert (await jobs.get("/v1/jobs")).json() == {"jobs": [], "next": None}


async def test_json_with_urls_becomes_the_same_job(jobs: httpx.AsyncClient, database: Database) -> None:
    answer = await jobs.post("/v1/jobs", json={**JSON, "fps": 30, "smooth": False, "crop": None, "other": 1})
    assert answer.status_code == 202, answer.text
    job = await read.get(database, "", identity(answer))
    assert job.urls == {"face_file": PUBLIC["face_url"], "audio_file": PUBLIC["audio_url"]}
    assert job.form == {"avatarFileType": "png", "background": "From Input", "fps": "30", "smooth": "false"}
    assert not job.inputs


BAD_JSON = [
    (b"{", 400, "the body is not valid JSON in UTF-8"),
    (b"\xff", 400, "the body is not valid JSON in UTF-8"),
    (b"[" * 60_000, 400, "the body is not valid JSON in UTF-8"),
    (b'{"fps": NaN}', 400, "the body is not valid JSON in UTF-8"),
    (b"[1]", 400, "the body has to be one JSON object"),
    (b'{"fps": 1, "fps": 2}', 400, "'fps': duplicate field"),
    (b'{"fps": [1]}', 400, "fps: expected text, a number, true or false"),
    (b'{"face_file": "abc"}', 400, "face_file: a file cannot be sent in JSON"),
    (b'{"face_url": "\\ud800"}', 400, "face_url: the text has characters that are not allowed"),
    (
        b'{"face_url": "https://a", "audio_url": "https://b", "background": "\\u0000"}',
        400,
        "background: the text has characters that are not allowed",
    ),
    (b" " * 70_000, 413, "the body has more than 65536 bytes"),
]


async def test_bad_json_is_rejected(jobs: httpx.AsyncClient) -> None:
    for body, status, detail in BAD_JSON:
        answer = await jobs.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (status, detail)


async def test_other_bodies_are_rejected(jobs: httpx.AsyncClient) -> None:
    answer = await jobs.post("/v1/jobs", content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
    detail = "send the job as multipart/form-data or as application/json; got 'application/x-www-form-urlencoded'"
    assert (answer.status_code, answer.json()) == (415, {"detail": detail, "code": "unsupported_type"})
    answer = await jobs.post("/v1/jobs")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("send the form as multipart/form-data, with face_file and audio_file")


@pytest.mark.parametrize("body", [{"files": form(colour="red", qualty="draft")}, {"json": {**JSON, "colour": "red"}}])
async def test_ignored_fields_are_named_in_a_header(jobs: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await jobs.post("/v1/jobs", **body)
    assert answer.status_code == 202
    assert answer.headers["x-avatar-ignored-fields"] == ("colour, qualty" if "files" in body else "colour")


async def test_the_texts_of_the_form_have_defaults(jobs: httpx.AsyncClient, database: Database) -> None:
    answer = await jobs.post("/v1/jobs", files=form(avatarFileType=None, background=None))
    assert answer.status_code == 202
    assert (await read.get(database, "", identity(answer))).form == {}


async def test_a_strict_service_rejects_unknown_fields(serve_jobs: ServeJobs) -> None:
    async with serve_jobs(strict_form=True) as client:
        for answer in (
            await client.post("/v1/jobs", files=form(colour="red")),
            await client.post("/v1/jobs", json={**JSON, "colour": "red"}),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (400, "'colour': unknown field")
        assert (await client.post("/v1/jobs", files=form(priority="batch"))).status_code == 202


async def test_the_same_key_and_content_is_the_same_job(jobs: httpx.AsyncClient, store: Path) -> None:
    key = {"Idempotency-Key": "key 1"}
    first = await jobs.post("/v1/jobs", files=form(), headers=key)
    again = await jobs.post("/v1/jobs", files=form(), headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(files(store)) == 2
    assert len((await jobs.get("/v1/jobs")).json()["jobs"]) == 1


@pytest.mark.parametrize(
    "changes", [{"face_file": ("face.png", b"another")}, {"fps": "30"}, {"priority": "batch"}], ids=str
)
async def test_the_same_key_with_other_content_is_a_conflict(
    jobs: httpx.AsyncClient, store: Path, changes: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": "key"}
    await jobs.post("/v1/jobs", files=form(), headers=key)
    answer = await jobs.post("/v1/jobs", files=form(**changes), headers=key)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Idempotency-Key: it was used before")
    assert len(files(store)) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "ü"])
async def test_an_idempotency_key_is_short_and_printable(jobs: httpx.AsyncClient, key: str) -> None:
    headers = httpx.Headers([(b"Idempotency-Key", key.encode())])
    answer = await jobs.post("/v1/jobs", files=form(), headers=headers)
    detail = "Idempotency-Key: expected 1 to 255 printable ASCII characters"
    assert (answer.status_code, answer.json()) == (400, {"detail": detail, "code": "invalid_field"})


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_many_submissions_with_one_key_make_one_job(
    live: Callable[..., Awaitable[Live]], database_url: str, store: Path, count: int
) -> None:
    """50 connections submit; all get the job of the first one, and only its files stay."""
    gateway = await live(database_url=database_url, store=str(store), workers=0)
    left = iter(range(count))
    answers: list[httpx.Response] = []
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits, verify=False) as client:  # noqa: S501

        async def submit() -> None:
            for _ in left:
                answers.append(await client.post("/v1/jobs", files=form(), headers={"Idempotency-Key": "one"}))

        while (await client.get("/v1/jobs")).status_code != 200:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)
        await asyncio.gather(*(submit() for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {202: count}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert files(store) == [f"inputs/{answers[0].json()['id']}/{name}" for name in ("audio_file", "face_file")]


async def test_the_form_with_the_preference_becomes_a_job(jobs: httpx.AsyncClient) -> None:
    answer = await jobs.post("/", files=form(), headers={"Prefer": "wait=10, Respond-Async"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert (await jobs.get(answer.headers["location"])).json() == answer.json()


async def test_without_a_database_the_preference_is_ignored(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.post("/", files=form(), headers={"Prefer": "respond-async"})
        assert (answer.status_code, answer.content) == (200, b"a face|a speech")
        assert "preference-applied" not in answer.headers


async def test_without_the_preference_the_form_is_answered_as_ever(jobs: httpx.AsyncClient) -> None:
    answer = await jobs.post("/", files=form(), headers={"Prefer": "wait=10"})
    assert (answer.status_code, answer.content) == (200, b"a face|a speech")
