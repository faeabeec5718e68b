"""Jobs whose files are on a real S3 server, and whose media come from, and go to, signed URLs."""

import secrets
from pathlib import Path

import httpx
import pytest

from jobs.store import Store
from tests.gateway.v1.conftest import ServeJobs, ended
from tests.support.gateway_fakes import form
from tests.support.seaweedfs import SeaweedFS

pytestmark = pytest.mark.xdist_group("seaweedfs")


@pytest.fixture
def location(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store; the environment has what it takes to use it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server.url(secrets.token_hex(8))


async def keys(location: str) -> list[str]:
    return [blob.key async for blob in Store.open(location).list()]


async def fetch(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as anybody:
        return await anybody.get(url)


async def test_the_result_is_fetched_from_the_object_storage_itself(serve_jobs: ServeJobs, location: str) -> None:
    async with serve_jobs(store=location, workers=1) as client:
        path = (await client.post("/v1/jobs", files=form())).headers["location"]
        view = await ended(client, path)
        assert view["state"] == "succeeded"
        answer = await client.get(view["result"]["url"])
        assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
        video = await fetch(answer.headers["location"])
        assert (video.content, video.headers["content-type"]) == (b"a face|a speech", "video/mp4")
        assert f"{view['id']}.mp4" in video.headers["content-disposition"]
        direct = await client.get(view["result"]["url"], params={"redirect": "false"})  # for who may ask no other host
        assert (direct.status_code, direct.content) == (200, b"a face|a speech")
        assert len(await keys(location)) == 1  # the inputs are gone
        assert (await client.delete(path)).status_code == 204
    assert await keys(location) == []


async def test_links_name_the_endpoint_that_callers_reach(
    serve_jobs: ServeJobs, location: str, s3_server: SeaweedFS
) -> None:
    public = f"http://localhost:{s3_server.port}"
    async with serve_jobs(store=location, workers=1, store_public_endpoint=public) as client:
        view = await ended(client, (await client.post("/v1/jobs", files=form())).headers["location"])
        url = (await client.get(view["result"]["url"])).headers["location"]
    assert url.startswith(f"{public}/")
    assert (await fetch(url)).content == b"a face|a speech"


async def test_media_come_from_signed_urls_and_the_result_is_put_to_one(
    serve_jobs: ServeJobs, location: str, tmp_path: Path
) -> None:
    callers = Store.open(f"{location}-of-a-caller")
    for key, content in (("face", b"a face by url"), ("speech", b"a speech by url")):
        (tmp_path / key).write_bytes(content)
        await callers.put_file(key, tmp_path / key)
    fields = {
        "face_file": None,
        "audio_file": None,
        "face_url": await callers.signed_url("face", 60),
        "audio_url": await callers.signed_url("speech", 60),
        "result_url": await callers.signed_url("result.mp4", 60, "PUT"),
    }
    async with serve_jobs(workers=1, url_allowed_hosts=("127.0.0.1:*",), url_allow_http=True) as client:
        answer = await client.post("/v1/jobs", files=form(**fields))
        assert answer.status_code == 202, answer.text
        view = await ended(client, answer.headers["location"])
    assert view["state"] == "succeeded", view
    assert await callers.fetch_file("result.mp4", tmp_path / "result.mp4") > 0
    assert (tmp_path / "result.mp4").read_bytes() == b"a face by url|a speech by url"
