"""The OpenAPI document validates, and a client that is generated from it runs a job."""

import asyncio
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.conftest import Live

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "examples.md"
CALLS = {
    "/v1/jobs": {"get", "post"},
    "/v1/jobs/{job_id}": {"get", "delete"},
    "/v1/jobs/{job_id}/events": {"get"},
    "/v1/jobs/{job_id}/result": {"get"},
    "/v1/avatars": {"get", "post"},
    "/v1/avatars/{avatar_id}": {"get", "delete"},
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_the_document_is_the_same_each_time() -> None:
    app = create_app(Settings())
    assert json.dumps(app.openapi()) == json.dumps(app.openapi())


def test_the_document_describes_every_call_and_its_errors(document: dict[str, Any]) -> None:
    paths = {path: item for path, item in document["paths"].items() if path.startswith("/v1/")}
    assert {path: set(item) for path, item in paths.items()} == CALLS
    for item in paths.values():
        for operation in item.values():
            assert {"401", "500", "501", "503"} <= set(operation["responses"])
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    (schema,) = (content["schema"] for content in response["content"].values())
                    assert schema["$ref"].endswith("/Problem")


def test_a_job_has_the_fields_of_the_form(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    form, job, by_url = (schemas[name]["properties"] for name in ("AvatarForm", "JobForm", "JobJson"))
    own = {"face_url", "audio_url", "result_url", "webhook", "webhook_events", "avatar", "priority"}
    assert set(job) == set(form) | own
    assert set(by_url) == set(job) - {"face_file", "audio_file", "background_file"}
    assert "default" not in job["avatarFileType"]  # which a client would send, whatever the kept face is


async def test_a_generated_client_posts_a_form(generated: str, live: Callable[..., Awaitable[Live]]) -> None:
    gateway = await live()
    package = importlib.import_module(generated)
    models, types, post = (
        importlib.import_module(f"{generated}.{name}") for name in ("models", "types", "api.avatar.make_avatar")
    )
    files = {
        "face_file": types.File(BytesIO(b"a face"), "face.png"),
        "audio_file": types.File(BytesIO(b"a speech"), "speech.wav"),
    }
    async with package.Client(gateway.url) as client, asyncio.timeout(60):
        video = await post.asyncio(client=client, body=models.AvatarForm(**files))
        problem = await post.asyncio(client=client, body=models.AvatarForm(**files, background="Pink"))
    assert video.payload.read() == b"a face|a speech"
    assert problem.detail.startswith("background: 'Pink' is not one of")


async def test_the_example_of_the_guide_saves_the_video(
    generated: str, live: Callable[..., Awaitable[Live]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await live()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face.png").write_bytes(b"a face")
    (tmp_path / "speech.wav").write_bytes(b"a speech")
    (code,) = re.findall(r"```py\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    code = code.replace("talking_avatar_client", generated).replace("http://127.0.0.1:16000", gateway.url)
    await asyncio.to_thread(exec, code, {})
    assert (tmp_path / "out.mp4").read_bytes() == b"a face|a speech"


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a package that openapi-python-client has made of the document."""
    folder = tmp_path_factory.mktemp("generated")
    path, config = folder / "openapi.json", folder / "config.yml"
    path.write_text(json.dumps(document))
    config.write_text("post_hooks: []\n")
    name = "generated_avatar_client"
    options = ["--path", path, "--output-path", folder / name, "--meta", "none", "--config", config]
    command = [sys.executable, "-m", "openapi_python_client", "generate", *map(str, options)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield name
    for module in [each for each in sys.modules if each.split(".")[0] == name]:
        del sys.modules[module]


async def test_a_generated_client_runs_a_job(
    generated: str, live: Callable[..., Awaitable[Live]], database_url: str, store: Path
) -> None:
    gateway = await live(database_url=database_url, store=str(store), workers=1)
    package = importlib.import_module(generated)
    models, types = (importlib.import_module(f"{generated}.{name}") for name in ("models", "types"))
    submit, read, result = (
        importlib.import_module(f"{generated}.api.jobs.{name}") for name in ("submit_job", "read_job", "read_result")
    )
    body = models.JobForm(
        face_file=types.File(BytesIO(b"a face"), "face.png"),
        audio_file=types.File(BytesIO(b"a speech"), "speech.wav"),
    )
    async with package.Client(gateway.url) as client, asyncio.timeout(60):
        job = await submit.asyncio(client=client, body=body, idempotency_key="one")
        while isinstance(job, models.Problem):  # the database gets its tables
            job = await submit.asyncio(client=client, body=body, idempotency_key="one")
        while job.state in (models.JobState.QUEUED, models.JobState.RUNNING):
            job = await read.asyncio(job.id, client=client)
        assert job.state == models.JobState.SUCCEEDED
        video = await result.asyncio(job.id, client=client)
    assert video.payload.read() == b"a face|a speech"
