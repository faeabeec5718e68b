"""The client's jobs against a real gateway with a real database and a fake render."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import threading
from pathlib import Path
from typing import Any, Literal

import pytest

from avatar_client import (
    AsyncAvatarJobs,
    AvatarClient,
    AvatarJobs,
    Cancelled,
    InvalidRequest,
    Job,
    JobEvent,
    Unavailable,
    _http,
    _job_events,
)
from avatar_client._jobs_http import Transport
from tests.client.conftest import FACE, SPEECH, VIDEO, call
from tests.support.api_keys import add_key
from tests.support.gateway_fakes import FakeRender, eventually
from tests.support.live_gateway import live_gateway, proxy_to

CLIENT = Path(__file__).parents[2] / "client"


@pytest.fixture
def jobs(url: str) -> AvatarJobs:
    return AvatarJobs(url, timeout=30)


async def ids(jobs: AvatarJobs, state: Literal["canceled"] | None = None) -> list[str]:
    listed: list[Job] = await call(list, jobs.list(state))
    return [job.id for job in listed]


async def test_a_job_is_submitted_waited_for_and_fetched(jobs: AvatarJobs, tmp_path: Path) -> None:
    face = tmp_path / "face.jpg"
    await call(face.write_bytes, FACE)
    sent = await call(jobs.submit, face, SPEECH, background="White", smooth=False)
    assert sent.state in ("queued", "running")
    ended = await call(jobs.wait, sent.id)
    assert (ended.id, ended.state) == (sent.id, "succeeded")
    assert ended.result is not None
    assert ended.result.sha256 == hashlib.sha256(VIDEO).hexdigest()
    steps: list[tuple[str, int, int | None]] = []
    await call(jobs.result, sent.id, tmp_path / "out.mp4", lambda *step: steps.append(step))
    assert (tmp_path / "out.mp4").read_bytes() == VIDEO
    assert steps[-1] == ("download", len(VIDEO), len(VIDEO))


async def test_the_options_and_the_type_of_the_face_arrive(jobs: AvatarJobs, render: FakeRender) -> None:
    job = await call(jobs.submit, FACE, SPEECH, background="Green", quality="draft")
    await call(jobs.wait, job.id)
    (request,) = render.requests
    assert "draft" in repr(request.options)


async def test_one_idempotency_key_is_one_job(jobs: AvatarJobs) -> None:
    first = await call(jobs.submit, FACE, SPEECH, idempotency_key="one")
    again = await call(jobs.submit, FACE, SPEECH, idempotency_key="one")
    assert again.id == first.id
    with pytest.raises(InvalidRequest) as caught:
        await call(jobs.submit, FACE, SPEECH + b"x", idempotency_key="one")
    assert caught.value.code == 409
    assert (await call(jobs.submit, FACE, SPEECH)).id != first.id


async def test_a_submission_whose_response_is_lost_is_repeated_and_makes_one_job(url: str) -> None:
    async with proxy_to(url) as proxy:
        proxy.cut_after = [10]
        jobs = AvatarJobs(proxy.url, timeout=30)
        job = await call(jobs.submit, FACE, SPEECH)
        assert len(proxy.heads) == 2
        assert await ids(jobs) == [job.id]


async def test_the_states_of_a_job_are_watched(jobs: AvatarJobs, render: FakeRender) -> None:
    job = await call(jobs.submit, FACE, SPEECH)
    events: list[JobEvent] = await call(list, jobs.watch(job.id))
    states = [event.state for event in events if event.state]
    assert states == ["queued", "running", "succeeded"]
    assert [event.is_final for event in events].count(True) == 1
    rest: list[JobEvent] = await call(list, jobs.watch(job.id, after=events[0].id))
    assert [event.state for event in rest if event.state] == ["running", "succeeded"]
    assert await call(list, jobs.watch(job.id, after=events[-1].id)) == []


async def test_watching_goes_on_after_a_lost_connection_without_repeating_a_state(url: str, render: FakeRender) -> None:
    render.gate.clear()
    async with proxy_to(url) as proxy:
        jobs = AvatarJobs(proxy.url, timeout=30)
        job = await call(jobs.submit, FACE, SPEECH)
        events: list[JobEvent] = []
        seen = threading.Event()

        def watch() -> None:
            for event in jobs.watch(job.id):
                events.append(event)
                if event.state == "running":
                    seen.set()

        watching = asyncio.create_task(call(watch))
        await call(seen.wait, 30)
        proxy.cut()
        await eventually(lambda: b"last-event-id" in proxy.heads[-1].lower())
        render.gate.set()
        await asyncio.wait_for(watching, 30)
    assert [event.state for event in events if event.state] == ["queued", "running", "succeeded"]


async def test_a_download_goes_on_where_it_was_cut(url: str, tmp_path: Path) -> None:
    async with proxy_to(url) as proxy:
        jobs = AvatarJobs(proxy.url, timeout=30)
        job = await call(jobs.submit, FACE, SPEECH)
        await call(jobs.wait, job.id)
        before = len(proxy.heads)
        proxy.cut_after = [10**9, 200_000, 150_000]  # the job, then two parts of the video
        await call(jobs.result, job.id, tmp_path / "out.mp4")
        ranges = [head for head in proxy.heads[before:] if b"Range: bytes=" in head]
    assert (tmp_path / "out.mp4").read_bytes() == VIDEO
    assert len(ranges) == 2
    assert all(b"If-Range" in head for head in ranges)
    assert await call(lambda: [path.name for path in tmp_path.glob(".*.part")]) == []


async def test_a_running_job_is_canceled_and_an_ended_one_stays(
    jobs: AvatarJobs, render: FakeRender, tmp_path: Path
) -> None:
    done = await call(jobs.submit, FACE, SPEECH)
    await call(jobs.wait, done.id)
    assert (await call(jobs.cancel, done.id)).state == "succeeded"
    await call(jobs.result, done.id, tmp_path / "out.mp4")
    render.gate.clear()
    job = await call(jobs.submit, FACE, SPEECH)
    await render.reached(1)
    assert (await call(jobs.cancel, job.id)).state == "canceled"
    assert (await call(jobs.wait, job.id)).state == "canceled"
    assert await ids(jobs, "canceled") == [job.id]
    with pytest.raises(InvalidRequest) as caught:
        await call(jobs.result, job.id, tmp_path / "none.mp4")
    assert caught.value.code == 410
    assert not (tmp_path / "none.mp4").exists()


async def test_a_removed_job_is_gone(jobs: AvatarJobs, render: FakeRender) -> None:
    render.gate.clear()
    job = await call(jobs.submit, FACE, SPEECH)
    await call(jobs.remove, job.id)
    with pytest.raises(InvalidRequest) as caught:
        await call(jobs.get, job.id)
    assert caught.value.code == 404


async def test_a_failed_job_says_why(jobs: AvatarJobs, render: FakeRender) -> None:
    from avatar.errors import InvalidField

    render.error = InvalidField("face_file", "not an image")
    job = await call(jobs.submit, FACE, SPEECH)
    ended = await call(jobs.wait, job.id)
    assert ended.state == "failed"
    assert ended.error is not None
    assert (ended.error.status, ended.error.detail) == (400, "face_file: not an image")


async def test_waiting_ends_at_its_timeout(jobs: AvatarJobs, render: FakeRender) -> None:
    render.gate.clear()
    job = await call(jobs.submit, FACE, SPEECH)
    with pytest.raises(Unavailable) as caught:
        await call(jobs.wait, job.id, 0.5)
    assert caught.value.code == 504


async def test_a_url_is_sent_as_a_url(jobs: AvatarJobs) -> None:
    with pytest.raises(InvalidRequest, match="face_url"):
        await call(jobs.submit, "http://127.0.0.1:9/face.png", SPEECH)
    with pytest.raises(InvalidRequest, match="audio_url"):
        await call(jobs.submit, FACE, "https://127.0.0.1:9/speech.wav")


async def test_a_gateway_that_is_away_is_tried_again(url: str) -> None:
    async with proxy_to("http://127.0.0.1:9") as proxy:
        jobs = AvatarJobs(proxy.url, timeout=5, retries=1)
        with pytest.raises(Unavailable):
            await call(jobs.get, "x")
        assert len(proxy.heads) == 2


async def test_keys_are_sent_and_limits_are_reported(
    render: FakeRender, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys"
    key, other = add_key(keys, "acme", "--queued", "1"), add_key(keys, "other")
    async with live_gateway(render, **settings | {"api_keys": keys, "workers": 0}) as url:
        monkeypatch.delenv("AVATAR_API_KEY", raising=False)
        with pytest.raises(InvalidRequest) as rejected:
            await call(list, AvatarJobs(url).list())
        assert rejected.value.code == 401
        monkeypatch.setenv("AVATAR_API_KEY", key)
        jobs = AvatarJobs(url)
        job = await call(jobs.submit, FACE, SPEECH)
        with pytest.raises(Unavailable) as limited:
            await call(jobs.submit, FACE, SPEECH)
        assert (limited.value.code, limited.value.retry_after) == (429, 5)
        with pytest.raises(InvalidRequest) as unseen:
            await call(AvatarJobs(url, other).get, job.id)
        assert unseen.value.code == 404


async def test_the_asynchronous_client_does_the_same(url: str, tmp_path: Path) -> None:
    with AvatarClient("127.0.0.1:9", http=url) as client:
        jobs = client.async_jobs
        job = await jobs.submit(FACE, SPEECH)
        states = [event.state async for event in jobs.watch(job.id) if event.state]
        assert states == ["queued", "running", "succeeded"]
        assert (await jobs.wait(job.id)).state == "succeeded"
        await jobs.result(job.id, tmp_path / "out.mp4")
        assert (tmp_path / "out.mp4").read_bytes() == VIDEO
        assert (await jobs.cancel(job.id)).state == "succeeded"
        assert [each.id async for each in jobs.list()] == [job.id]
        await jobs.remove(job.id)
        with pytest.raises(InvalidRequest):
            await jobs.get(job.id)


async def test_cancelling_a_task_ends_its_thread(url: str, render: FakeRender) -> None:
    render.gate.clear()
    jobs = AsyncAvatarJobs(url)
    job = await jobs.submit(FACE, SPEECH)
    waiting = asyncio.create_task(jobs.wait(job.id))
    await render.reached(1)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError, Cancelled):
        await waiting
    await eventually(lambda: not [each for each in threading.enumerate() if each.name == "avatar-jobs"])


def test_a_client_without_the_gateways_url_has_no_jobs() -> None:
    with AvatarClient("127.0.0.1:9") as client, pytest.raises(ValueError, match="http="):
        client.jobs  # noqa: B018 - it raises
    for wrong in ("127.0.0.1:16000", "ftp://host", ""):
        with pytest.raises(ValueError, match="http://host:port"):
            AvatarJobs(wrong)


async def test_a_redirect_is_followed_without_the_key() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) == 1:
            writer.write(b"HTTP/1.1 307 x\r\nLocation: /signed?a=b\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvideo")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = Transport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/base", "avk_key", 30, 0)

    def fetch() -> bytes:
        with transport.get("/v1/jobs/x/result", {"Range": "bytes=1-"}) as (response, _):
            return response.read()

    assert await call(fetch) == b"video"
    server.close()
    assert heads[0].startswith(b"GET /base/v1/jobs/x/result ") and b"avk_key" in heads[0]
    assert heads[1].startswith(b"GET /signed?a=b ") and b"avk_key" not in heads[1]
    assert all(b"Range: bytes=1-" in head for head in heads)


def test_an_event_stream_is_read_as_the_specification_says() -> None:
    comment = b": comment\r\nretry: 1\r\n\r\n"
    state = b'id: 7\nevent: state\ndata: {"state":\ndata:  "running"}\n\n'
    unknown = b"event: new\ndata: 1\n\n"
    progress = b'event: progress\ndata: {"stage": "encode", "frames_done": 1, "frames_total": null}\n\n'
    stream = comment + state + unknown + progress + b"event: state\ndata:"  # without its end
    assert list(_job_events.parse(stream.splitlines(keepends=True))) == [
        JobEvent(state="running", id="7"),
        JobEvent(stage="encode", frames_done=1),
    ]


async def test_the_example_of_the_documents_runs(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = await call((CLIENT.parent / "docs" / "guide" / "python-client.md").read_text)
    (example,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    await call((tmp_path / "face.jpg").write_bytes, FACE)
    await call((tmp_path / "speech.wav").write_bytes, SPEECH)
    await call(exec, example.replace("http://127.0.0.1:16000", url), {})
    assert (tmp_path / "out.mp4").read_bytes() == VIDEO


def test_bytes_in_a_form_are_sent_as_a_file() -> None:
    form = _http.MultipartForm({}, {"face_file": b"content"})
    body = b"".join(form.blocks())
    assert len(body) == form.length
    assert b'name="face_file"; filename="face_file"' in body and b"content" in body
