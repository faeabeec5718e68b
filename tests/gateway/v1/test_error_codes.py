"""Every error of `/v1` has a code of one documented list; those of the form have none, as in the original service."""

import re
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

import jobs.quotas
from avatar.errors import AvatarError, ClientError, Unavailable
from gateway.codes import KEY_LIMITS, ErrorCode
from jobs.execution import INTERNAL_ERROR
from jobs.repository.leases import WORKER_LOST
from tests.gateway.v1.conftest import ServeJobs, identity
from tests.support.api_keys import add_key
from tests.support.gateway_fakes import DownModels, Serve, form

ROOT = Path(__file__).parents[3]


def error_classes(kind: type[AvatarError] = AvatarError) -> list[type[AvatarError]]:
    return [kind, *(below for each in kind.__subclasses__() for below in error_classes(each))]


def test_the_list_is_that_of_the_classes_of_errors() -> None:
    quotas = set(re.findall(r'"(too_[a-z_]+)"', Path(jobs.quotas.__file__).read_text()))
    assert quotas == KEY_LIMITS
    others = {INTERNAL_ERROR.code, WORKER_LOST.code, "not_found", "method_not_allowed", "range_not_satisfiable"}
    sent = {each.code for each in error_classes() if issubclass(each, ClientError | Unavailable)}
    assert {str(code) for code in sent} | quotas | others == set(ErrorCode)


def test_the_guide_lists_every_code() -> None:
    text = (ROOT / "docs/guide/jobs.md").read_text().partition("## Errors")[2]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) == set(ErrorCode)


async def test_every_kind_of_answer_has_its_code(jobs: httpx.AsyncClient) -> None:
    unknown = uuid4()
    job = await jobs.post("/v1/jobs", files=form(), headers={"Idempotency-Key": "one"})
    path = job.headers["location"]
    canceled = (await jobs.post("/v1/jobs", files=form())).headers["location"]
    await jobs.delete(canceled)
    answers = {
        "invalid_field": await jobs.post("/v1/jobs", files=form(background="Purple")),
        "malformed_body": await jobs.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
        "unsupported_type": await jobs.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"}),
        "unsupported_encoding": await jobs.post("/v1/jobs", files=form(), headers={"Content-Encoding": "gzip"}),
        "idempotency_conflict": await jobs.post("/v1/jobs", files=form(fps="30"), headers={"Idempotency-Key": "one"}),
        "not_finished": await jobs.get(f"{path}/result"),
        "result_gone": await jobs.get(f"{canceled}/result"),
        "job_not_found": await jobs.get(f"/v1/jobs/{unknown}"),
        "avatar_not_found": await jobs.get("/v1/avatars/no-id"),
        "not_found": await jobs.get("/v1/nothing"),
        "method_not_allowed": await jobs.put("/v1/jobs"),
    }
    assert {code: answer.json()["code"] for code, answer in answers.items()} == {code: code for code in answers}
    assert all(answer.json()["detail"] for answer in answers.values())
    assert answers["method_not_allowed"].headers["allow"]
    assert identity(job)


async def test_a_call_without_a_key_or_a_database_has_its_code(
    serve: Serve, serve_jobs: ServeJobs, tmp_path: Path
) -> None:
    async with serve() as client:
        assert (await client.get("/v1/jobs")).json()["code"] == "no_database"
    key = add_key(tmp_path / "keys", "mine", "--priority", "batch")
    async with serve_jobs(api_keys=tmp_path / "keys") as client:
        assert (await client.get("/v1/jobs")).json()["code"] == "unauthorized"
        answer = await client.post("/v1/jobs", files=form(), headers={"X-Api-Key": key})
        assert answer.json()["code"] == "forbidden_priority"


async def test_a_fault_has_its_code(serve_jobs: ServeJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_jobs(models=DownModels()) as client:
        face = {"face_file": ("face", b"x")}
        assert (await client.post("/v1/avatars", files=face)).json()["code"] == "unavailable"

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("gateway.v1.jobs.read.page", broken)
        answer = await client.get("/v1/jobs", headers={"X-Request-ID": "id-1"})
        assert answer.json() == {"detail": "internal error", "code": "internal_error", "request_id": "id-1"}


async def test_the_form_answers_as_the_original_service(jobs: httpx.AsyncClient) -> None:
    answers = [
        await jobs.post("/", files=form(background="Purple")),
        await jobs.post("/", files=form(background="Purple"), headers={"Prefer": "respond-async"}),
        await jobs.get("/nothing"),
        await jobs.put("/"),
    ]
    assert [set(answer.json()) for answer in answers] == [{"detail"}] * 4
