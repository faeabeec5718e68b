"""Real connections: clients that disconnect, uploads that stall."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from avatar.errors import FaceNotFound
from avatar.events import Event, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from gateway.download import Download
from gateway.settings import Settings
from tests.support.gateway_fakes import FakeRender, contents, eventually, form, leftovers, post

Start = Callable[..., Awaitable]


async def test_a_form_works_over_a_real_connection(live: Start, work: Path) -> None:
    gateway = await live()
    response = await post(gateway.url)
    assert (response.status_code, response.content) == (200, b"a face|a speech")
    await eventually(lambda: leftovers(work) == [])


async def test_a_client_that_disconnects_ends_its_job(
    live: Start, render: FakeRender, work: Path, raw_form: bytes
) -> None:
    render.gate.clear()
    gateway = await live()
    connection = await gateway.send(raw_form)
    await render.reached(1)
    connection.close()
    await eventually(lambda: render.cancelled == 1)
    await eventually(lambda: leftovers(work) == [])
    assert gateway.jobs.running == 0


async def test_a_client_that_disconnects_while_it_is_queued_leaves_the_queue(
    live: Start, render: FakeRender, work: Path, raw_form: bytes
) -> None:
    render.gate.clear()
    gateway = await live(max_jobs=1)
    first = asyncio.create_task(post(gateway.url))
    await render.reached(1)
    connection = await gateway.send(raw_form)
    await eventually(lambda: gateway.jobs.queued == 1)
    connection.close()
    await eventually(lambda: gateway.jobs.queued == 0)
    render.gate.set()
    assert (await first).status_code == 200
    assert len(render.requests) == 1
    await eventually(lambda: leftovers(work) == [])


async def test_a_client_that_disconnects_during_its_upload_leaves_no_file(
    live: Start, render: FakeRender, work: Path, raw_form: bytes
) -> None:
    gateway = await live()
    connection = await gateway.send(raw_form[:-20])
    await eventually(lambda: leftovers(work) != [])
    connection.close()
    await eventually(lambda: leftovers(work) == [])
    assert render.requests == []


async def test_a_client_that_disconnects_during_its_download_leaves_no_file(
    live: Start, work: Path, raw_form: bytes
) -> None:
    async def large(request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Event]:
        video = request.folder / "video.mp4"
        video.write_bytes(bytes(64 * 1024 * 1024))  # more than the sockets' buffers hold
        yield RenderResult(video, "mp4", 1, Fraction(25), 0.04, {})

    gateway = await live(job=large)
    connection = await gateway.send(raw_form)
    await eventually(lambda: any(path.name == "video.mp4" for path in contents(work)))
    assert leftovers(work) != []
    connection.transport.abort()
    await eventually(lambda: leftovers(work) == [])


async def test_a_client_that_disconnects_is_logged_as_499(
    live: Start, render: FakeRender, raw_form: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    render.gate.clear()
    gateway = await live()
    connection = await gateway.send(raw_form)
    await render.reached(1)
    connection.close()
    await eventually(lambda: any(getattr(record, "fields", {}).get("status") == 499 for record in caplog.records))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_upload_that_stalls_is_aborted(live: Start, work: Path, raw_form: bytes) -> None:
    gateway = await live(upload_timeout=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_form[:-20])
    assert (await asyncio.wait_for(reader.readline(), 20)).split()[1] == b"408"
    assert b"upload timed out: no data received for 0.2 s" in await asyncio.wait_for(reader.readuntil(b"}"), 20)
    writer.close()
    await eventually(lambda: leftovers(work) == [])


async def send_and_shut_down(
    live: Start, render: FakeRender, raw_form: bytes, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a form, shut down the sending side, and check that its job goes on for this time."""
    render.gate.clear()
    gateway = await live()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_form)
    writer.write_eof()
    await render.reached(1)
    await asyncio.sleep(seconds)
    assert render.cancelled == 0
    return reader, writer


async def test_a_client_that_only_stops_sending_gets_its_video(
    live: Start, render: FakeRender, raw_form: bytes
) -> None:
    reader, writer = await send_and_shut_down(live, render, raw_form, 1)
    render.gate.set()
    answer = await asyncio.wait_for(reader.read(), 20)  # up to the end: the gateway closes the connection
    interim, _, rest = answer.partition(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b"\r\n\r\na face|a speech")
    assert interim.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == b""
    writer.close()


async def test_a_client_that_stops_sending_and_then_leaves_ends_its_job(
    live: Start, render: FakeRender, raw_form: bytes
) -> None:
    _, writer = await send_and_shut_down(live, render, raw_form, 0.6)
    writer.close()
    await eventually(lambda: render.cancelled == 1)


async def test_a_client_that_stops_sending_in_the_middle_of_its_form_is_gone(
    live: Start, work: Path, raw_form: bytes
) -> None:
    gateway = await live()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_form[:-20])
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 20) == b""
    await eventually(lambda: leftovers(work) == [])
    writer.close()


async def test_a_file_over_the_limit_is_rejected_before_the_upload_ends(live: Start, raw_form: bytes) -> None:
    gateway = await live(max_upload_bytes=4)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(raw_form[:-20])  # the end of the form is never sent
    assert (await asyncio.wait_for(reader.readline(), 20)).split()[1] == b"413"
    writer.close()


async def test_other_requests_are_answered_while_the_disk_blocks(live: Start, render: FakeRender, work: Path) -> None:
    render.error = FaceNotFound()
    gateway = await live()
    started, pipe_exists = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        whole = request.read()
        yield whole[:10]
        started.set()
        await pipe_exists.wait()
        yield whole[10:]

    async with httpx.AsyncClient(timeout=60) as client:
        request = client.build_request("POST", gateway.url, files=form(face_file=("f", bytes(3_000_000))))
        upload = asyncio.create_task(client.post(gateway.url, content=body(), headers=request.headers))
        await started.wait()
        await eventually(lambda: leftovers(work) != [])
        pipe = leftovers(work)[0] / "face"
        os.mkfifo(pipe)  # replaces the file: writing blocks until the test reads
        end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        pipe_exists.set()
        for _ in range(20):
            assert (await client.get(f"{gateway.url}/ping")).status_code == 200
        assert not upload.done()
        while not upload.done():
            with contextlib.suppress(BlockingIOError):
                os.read(end, 1_000_000)
            await asyncio.sleep(0.001)
        os.close(end)
        assert (await upload).status_code == 400


async def test_nothing_is_sent_of_a_video_that_cannot_be_opened(tmp_path: Path) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    video = tmp_path / "video.mp4"
    video.write_bytes(b"a video")
    download = Download(video, settings=Settings(), stat_result=video.stat())
    video.unlink()
    with pytest.raises(FileNotFoundError):
        await download({"type": "http", "method": "POST", "headers": []}, receive, send)
    assert sent == []


async def test_while_a_client_reads_slowly_only_the_result_is_kept(live: Start, work: Path) -> None:
    gateway = await live()
    large = form(face_file=("face.png", bytes(30_000_000)))  # more than the buffers of a connection hold
    request = httpx.Request("POST", gateway.url, files=large)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    writer = await gateway.send(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    await eventually(lambda: [path.name for path in leftovers(work) if path.is_file()] == ["video.mp4"])
    assert gateway.jobs.running == 0
    writer.close()
