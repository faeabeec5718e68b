"""What one client can hold: real connections that are slow, silent, many, or do not read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction
from pathlib import Path

import httpx
import pytest

from avatar.events import Event, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from tests.gateway.conftest import Live
from tests.support.gateway_fakes import FakeRender, Serve, eventually, form, leftovers

Start = Callable[..., Awaitable[Live]]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(gateway, "127.0.0.2")`: a connection from this address, closed at the end of the test."""
    opened: list[asyncio.StreamWriter] = []

    async def open_one(gateway: Live, address: str = "127.0.0.1") -> Connection:
        connection = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(address, 0))
        opened.append(connection[1])
        return connection

    yield open_one
    for writer in opened:
        writer.close()


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict[str, str]]:
    """The status, the headers and the JSON body of the next response."""
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, json.loads(body)


async def drip(writer: asyncio.StreamWriter, data: bytes = b"x") -> None:
    """Send a byte now and then, until the connection ends."""
    try:
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.02)
    except OSError:
        pass


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def metric(gateway: Live, name: str, **labels: str) -> float:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{gateway.url}/metrics")).text
    shown = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name}{shown} "))


async def test_a_dripping_upload_ends_and_its_place_is_free(
    live: Start, connect: Connect, work: Path, raw_form: bytes
) -> None:
    gateway = await live(max_jobs=1, max_queued=0, transfer_seconds=0.5, header_timeout=0.3)
    reader, writer = await connect(gateway)
    writer.write(raw_form[:-200])
    dripping = asyncio.create_task(drip(writer))
    status, _, body = await response(reader)
    rule = "after the first 0.5 s, at least 50000 bytes per second are required"
    assert (status, body) == (408, {"detail": f"upload timed out: it is too slow; {rule}"})
    await eventually(lambda: leftovers(work) == [])
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.post(gateway.url, files=form())).status_code == 200
    await ended(reader)  # although it goes on sending
    await asyncio.wait_for(dripping, 30)
    assert await metric(gateway, "avatar_connections_closed_total", reason="slow_upload") == 1


async def test_an_upload_that_keeps_the_rate_may_take_longer(live: Start, connect: Connect, raw_form: bytes) -> None:
    gateway = await live(transfer_seconds=0.3, transfer_min_rate=10)
    reader, writer = await connect(gateway)
    for start in range(0, len(raw_form), 50):
        writer.write(raw_form[start : start + 50])
        await asyncio.sleep(0.1)
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 30)


async def test_a_silent_connection_is_closed(live: Start, connect: Connect) -> None:
    gateway = await live(header_timeout=0.2)
    reader, _ = await connect(gateway)
    assert await ended(reader) == b""
    assert await metric(gateway, "avatar_connections_closed_total", reason="head") == 1


async def test_a_head_that_never_ends_is_answered_with_408(live: Start, connect: Connect) -> None:
    gateway = await live(header_timeout=0.3)
    reader, writer = await connect(gateway)
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n")
    dripping = asyncio.create_task(drip(writer, b"A: b\r\n"))
    status, headers, body = await response(reader)
    assert (status, headers["connection"]) == (408, "close")
    assert body == {"detail": "the head of the request did not arrive within 0.3 s"}
    await asyncio.wait_for(dripping, 30)


async def test_the_second_request_of_a_connection_has_the_same_time(live: Start, connect: Connect) -> None:
    gateway = await live(header_timeout=0.3)
    reader, writer = await connect(gateway)
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /ping HTT")
    assert (await response(reader))[0] == 200
    assert (await response(reader))[0] == 408
    assert await ended(reader) == b""


async def test_a_connection_is_kept_for_the_next_request(live: Start, connect: Connect) -> None:
    gateway = await live(header_timeout=0.3)
    reader, writer = await connect(gateway)
    for _ in range(3):
        writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await response(reader))[2] == {"pong": "-"}
        await asyncio.sleep(0.4)  # longer than a head may take, shorter than an idle connection is kept


async def test_a_long_job_is_not_taken_for_a_silent_connection(
    live: Start, connect: Connect, render: FakeRender, raw_form: bytes
) -> None:
    render.gate.clear()
    gateway = await live(header_timeout=0.2, upload_timeout=0.2, transfer_seconds=0.2)
    reader, writer = await connect(gateway)
    writer.write(raw_form)
    await render.reached(1)
    await asyncio.sleep(1)
    render.gate.set()
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 30)


async def test_bytes_that_are_no_http_are_answered_in_our_form(live: Start, connect: Connect) -> None:
    gateway = await live()
    reader, writer = await connect(gateway)
    writer.write(b"\x16\x03\x01 not http\r\n\r\n")
    status, _, body = await response(reader)
    assert (status, body) == (400, {"detail": "invalid HTTP request"})


async def test_one_connection_too_many_is_answered_with_503(live: Start, connect: Connect) -> None:
    gateway = await live(max_connections=8)
    held = [await connect(gateway, f"127.0.0.{2 + n // 4}") for n in range(8)]
    reader, writer = await connect(gateway)
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    status, headers, body = await response(reader)
    assert (status, body) == (503, {"detail": "too many connections; try again later"})
    assert int(headers["retry-after"]) > 0
    for _, each in held:
        each.close()
    await eventually(lambda: len(gateway.server.server_state.connections) < 4)
    assert await metric(gateway, "avatar_connections_closed_total", reason="limit") == 1


async def test_a_refused_upload_can_read_its_answer(live: Start, connect: Connect, raw_form: bytes) -> None:
    gateway = await live(max_connections=8)
    held = [(await connect(gateway, f"127.0.0.{2 + n // 4}"))[1] for n in range(8)]
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(gateway.url, files=form(face_file=("face.png", bytes(20_000_000))))
        assert answer.status_code == 503
        for each in held:
            each.close()
        await eventually(lambda: len(gateway.server.server_state.connections) == 0)
        assert (await client.post(gateway.url, files=form())).status_code == 200


async def test_one_address_may_have_half_of_the_connections(live: Start, connect: Connect) -> None:
    gateway = await live(max_connections=8)
    for _ in range(4):
        await connect(gateway, "127.0.0.2")
    reader, writer = await connect(gateway, "127.0.0.2")
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    status, _, body = await response(reader)
    assert (status, body) == (429, {"detail": "too many connections from one address; close some of them"})
    other, writer = await connect(gateway, "127.0.0.3")
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await response(other))[0] == 200


async def test_a_trusted_proxy_may_have_all_connections(live: Start, connect: Connect) -> None:
    gateway = await live(max_connections=8, trusted_proxies="127.0.0.2")
    for _ in range(7):
        await connect(gateway, "127.0.0.2")
    reader, writer = await connect(gateway, "127.0.0.2")
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await response(reader))[0] == 200


@pytest.mark.parametrize("settings", [{"upload_timeout": 0.3}, {"transfer_seconds": 0.3, "transfer_min_rate": 10**9}])
async def test_a_client_that_does_not_read_its_video_is_cut_off(
    live: Start, work: Path, raw_form: bytes, settings: dict[str, float]
) -> None:
    async def large(request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Event]:
        video = request.folder / "video.mp4"
        video.write_bytes(bytes(64 * 1024 * 1024))  # more than the sockets' buffers hold
        yield RenderResult(video, "mp4", 1, Fraction(25), 0.04, {})

    gateway = await live(job=large, **settings)
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(raw_form)
        await eventually(lambda: leftovers(work) != [])
        await eventually(lambda: leftovers(work) == [])
        await eventually(lambda: len(gateway.server.server_state.connections) == 0)
    assert await metric(gateway, "avatar_connections_closed_total", reason="slow_download") == 1


async def test_one_address_cannot_hold_all_places(
    live: Start, connect: Connect, render: FakeRender, raw_form: bytes
) -> None:
    gateway = await live(max_jobs=1, max_queued=3)
    held = [await connect(gateway) for _ in range(2)]
    for _, writer in held:
        writer.write(raw_form[:-20])
    await eventually(lambda: gateway.jobs._admitted == 2)
    reader, writer = await connect(gateway)
    writer.write(raw_form.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n", 1))  # it is not trusted
    status, headers, body = await response(reader)
    assert (status, int(headers["retry-after"]) > 0) == (429, True)
    detail = "limit of 2 running and queued requests per client address reached; wait until one of them ends"
    assert body == {"detail": detail}
    other, writer = await connect(gateway, "127.0.0.3")
    writer.write(raw_form)
    assert b" 200 " in await asyncio.wait_for(other.readline(), 30)
    assert await metric(gateway, "avatar_jobs_rejected_total", reason="client") == 1


async def test_behind_a_trusted_proxy_each_of_its_clients_has_a_share(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()

    async def post(client: httpx.AsyncClient, forwarded: str) -> httpx.Response:
        return await client.post("/", files=form(), headers={"X-Forwarded-For": forwarded})

    async with serve(max_jobs=2, max_queued=1, max_jobs_per_client=1, trusted_proxies="127.0.0.0/8") as client:
        first = [asyncio.create_task(post(client, f"198.51.100.{n}")) for n in (1, 2)]
        await render.reached(2)
        assert (await post(client, "203.0.113.9, 198.51.100.2")).status_code == 429
        render.gate.set()
        assert [(await each).status_code for each in first] == [200, 200]


async def test_without_a_trusted_proxy_the_header_counts_for_nothing(serve: Serve, render: FakeRender) -> None:
    render.gate.clear()
    async with serve(max_jobs=2, max_jobs_per_client=1) as client:
        first = asyncio.create_task(client.post("/", files=form()))
        await render.reached(1)
        answer = await client.post("/", files=form(), headers={"X-Forwarded-For": "198.51.100.1"})
        assert answer.status_code == 429
        render.gate.set()
        assert (await first).status_code == 200
