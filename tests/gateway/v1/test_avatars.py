"""/v1/avatars: a face is looked at once, kept, and used by jobs."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from avatar.form.parse import SEND_A_FILE
from jobs.database import Database
from jobs.repository import read
from tests.gateway.v1.conftest import ServeJobs, ended, files, identity, take
from tests.support.gateway_fakes import DownModels, ReadyModels, form
from tests.support.media import moving_square, write_still, write_video


def face_form(face: bytes, face_type: str = "png") -> dict[str, Any]:
    return {"face_file": ("face", face), "avatarFileType": (None, face_type)}


@pytest.fixture
def face(tmp_path: Path) -> bytes:
    return write_still(tmp_path / "face.png").read_bytes()


async def test_a_face_is_kept_shown_listed_and_removed(jobs: httpx.AsyncClient, face: bytes, store: Path) -> None:
    made = await jobs.post("/v1/avatars", files=face_form(face))
    assert made.status_code == 201, made.text
    view = made.json()
    assert made.headers["location"] == f"/v1/avatars/{view['id']}"
    assert (view["avatarFileType"], view["frames"], view["size"]) == ("png", None, len(face))
    assert view["width"] > 0 < view["height"]
    assert files(store) == [f"avatars/{view['id']}"]
    assert (await jobs.get(made.headers["location"])).json() == view
    second = (await jobs.post("/v1/avatars", files=face_form(face, "jpg"))).json()
    first_page = (await jobs.get("/v1/avatars?limit=1")).json()
    assert first_page["avatars"] == [second]
    assert (await jobs.get("/v1/avatars", params={"cursor": first_page["next"]})).json() == {
        "avatars": [view],
        "next": None,
    }
    assert (await jobs.delete(made.headers["location"])).status_code == 204
    assert (await jobs.get(made.headers["location"])).status_code == 404
    assert files(store) == [f"avatars/{second['id']}"]


@pytest.mark.parametrize(
    ("parts", "detail"),
    [
        ({"avatarFileType": (None, "png")}, "face_file: the field is missing"),
        ({"face_file": (None, "text"), "avatarFileType": (None, "png")}, f"face_file: {SEND_A_FILE}"),
        (face_form(b""), "face_file: the file is empty"),
        ({"face_file": ("face", b"x")}, "face_file: "),
        (face_form(b"no image"), "face_file: "),
    ],
)
async def test_an_invalid_face_is_not_kept(
    jobs: httpx.AsyncClient, store: Path, parts: dict[str, Any], detail: str
) -> None:
    answer = await jobs.post("/v1/avatars", files=parts)
    assert (answer.status_code, answer.json()["detail"][: len(detail)]) == (400, detail)
    assert files(store) == []
    assert (await jobs.get("/v1/avatars")).json() == {"avatars": [], "next": None}


async def test_a_picture_without_a_face_is_rejected_as_the_form_rejects_it(
    serve_jobs: ServeJobs, face: bytes, store: Path
) -> None:
    async with serve_jobs(models=ReadyModels(lambda image: None)) as client:
        answer = await client.post("/v1/avatars", files=face_form(face))
    sentence = "Face not detected! Ensure the video contains a face in all the frames."
    assert (answer.status_code, answer.json()) == (400, {"detail": sentence, "code": "face_not_found"})
    assert files(store) == []


async def test_models_that_are_down_are_503(serve_jobs: ServeJobs, face: bytes) -> None:
    async with serve_jobs(models=DownModels()) as client:
        assert (await client.post("/v1/avatars", files=face_form(face))).status_code == 503


async def test_a_job_uses_a_kept_face(serve_jobs: ServeJobs, face: bytes, store: Path, database: Database) -> None:
    async with serve_jobs(workers=1) as client:
        avatar = (await client.post("/v1/avatars", files=face_form(face))).json()["id"]
        parts = form(face_file=None, avatarFileType=None, avatar=avatar)
        answer = await client.post("/v1/jobs", files=parts)
        assert answer.status_code == 202, answer.text
        job = await read.get(database, "", identity(answer))
        assert (str(job.avatar), job.form["avatarFileType"]) == (avatar, "png")
        view = await ended(client, answer.headers["location"])
        assert (view["state"], view["avatar"]) == ("succeeded", avatar)
        assert (await client.get(view["result"]["url"])).content == face + b"|a speech"
    assert f"avatars/{avatar}" in files(store)


async def test_a_face_that_a_job_waits_for_is_not_removed(
    jobs: httpx.AsyncClient, face: bytes, store: Path, database: Database
) -> None:
    path = (await jobs.post("/v1/avatars", files=face_form(face))).headers["location"]
    job = await jobs.post("/v1/jobs", files=form(face_file=None, avatar=path.rpartition("/")[2]))
    for _ in ("queued", "running"):
        answer = await jobs.delete(path)
        assert (answer.status_code, answer.json()["detail"][:40]) == (409, "the avatar is used by a job that has not")
        if not (await jobs.get(job.headers["location"])).json()["attempts"]:
            await take(database)
    await jobs.delete(job.headers["location"])
    assert (await jobs.delete(path)).status_code == 204


async def test_unknown_faces_are_404(jobs: httpx.AsyncClient, store: Path) -> None:
    unknown = str(uuid4())
    answers = [
        await jobs.get(f"/v1/avatars/{unknown}"),
        await jobs.delete(f"/v1/avatars/{unknown}"),
        await jobs.post("/v1/jobs", files=form(face_file=None, avatar=unknown)),
    ]
    assert [(answer.status_code, answer.json()["detail"]) for answer in answers] == [
        (404, "there is no such avatar")
    ] * 3
    assert files(store) == []


async def test_the_background_is_checked_with_the_type_of_the_kept_face(jobs: httpx.AsyncClient, face: bytes) -> None:
    avatar = (await jobs.post("/v1/avatars", files=face_form(face))).json()["id"]
    parts = form(face_file=None, avatarFileType=None, avatar=avatar, background="Purple")
    answer = await jobs.post("/v1/jobs", files=parts)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("background: 'Purple' is not one of")


async def test_the_content_decides_if_the_type_is_left_out(
    jobs: httpx.AsyncClient, face: bytes, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "face.mp4", moving_square(3)).read_bytes()
    for content, expected in ((face, "png"), (video, "mp4")):
        answer = await jobs.post("/v1/avatars", files={"face_file": ("face", content)})
        assert (answer.status_code, answer.json()["avatarFileType"]) == (201, expected)


async def test_of_a_video_the_first_frame_has_to_show_a_face(jobs: httpx.AsyncClient, tmp_path: Path) -> None:
    video = write_video(tmp_path / "face.mp4", moving_square(5)).read_bytes()
    view = (await jobs.post("/v1/avatars", files=face_form(video, "mp4"))).json()
    assert (view["frames"], view["avatarFileType"]) == (5, "mp4")
