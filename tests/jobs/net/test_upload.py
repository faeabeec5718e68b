"""Results that are sent to a URL, and small messages, to real servers on loopback addresses."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from avatar.errors import InvalidField, StorageFault
from jobs.net.addresses import UrlRules
from jobs.net.client import UrlClient
from jobs.net.errors import RefusedUrl, RequestFailed
from jobs.net.post import BODY_BYTES, post
from jobs.net.upload import upload
from jobs.store import Store
from tests.support.http_origin import Handler, Origin, Received, head, in_turn, redirect, reply
from tests.support.seaweedfs import SeaweedFS

CONTENT = secrets.token_bytes(1_000_000)

pytestmark = pytest.mark.xdist_group("seaweedfs")


@pytest.fixture
async def client() -> AsyncIterator[UrlClient]:
    async with UrlClient(UrlRules.of(["127.0.0.1:*"], allow_http=True), retry_pause=0.01) as client:
        yield client


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "result.mp4"
    path.write_bytes(CONTENT)
    return path


async def send(client: UrlClient, url: str, result: Path, seconds: float | None = None) -> None:
    await upload(client, url, result, field="result_url", content_type="video/mp4", seconds=seconds)


async def hang(request: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drop(request: Received, writer: asyncio.StreamWriter) -> None:
    """Close the connection without a response."""


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_a_result_is_put_with_its_length_and_type(client: UrlClient, result: Path, status: int) -> None:
    async with Origin({"/a?b=c": reply(b"", status)}) as origin:
        await send(client, f"{origin.url}/a?b=c", result)
    (request,) = origin.requests
    assert (request.method, request.body) == ("PUT", CONTENT)
    assert request.headers["content-length"] == str(len(CONTENT))
    assert request.headers["content-type"] == "video/mp4"
    assert "transfer-encoding" not in request.headers


async def test_a_result_is_put_to_a_signed_url_of_s3(
    client: UrlClient, result: Path, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store = Store.open(s3_server.url("sent"))
    url = await store.signed_url("results/1.mp4", 60, "PUT")
    assert url is not None
    await send(client, url, result)
    assert await store.fetch_file("results/1.mp4", tmp_path / "back") == len(CONTENT)
    signed = await store.signed_url("results/1.mp4", 60)
    assert signed is not None
    async with httpx.AsyncClient() as reader:
        response = await reader.get(signed)
    assert (response.content, response.headers["content-type"]) == (CONTENT, "video/mp4")
    with pytest.raises(InvalidField, match="answered 403 Forbidden"):
        await send(client, url.replace("1.mp4", "2.mp4"), result)


@pytest.mark.parametrize("first", [reply(b"", 500), reply(b"", 503), reply(b"", 429), drop])
async def test_a_server_that_fails_gets_the_whole_result_again(client: UrlClient, result: Path, first: Handler) -> None:
    async with Origin({"/": in_turn(first, first, reply(b""))}) as origin:
        await send(client, f"{origin.url}/", result)
    assert [request.body == CONTENT for request in origin.requests] == [True] * 3


@pytest.mark.parametrize(
    ("handler", "requests", "sentence"),
    [
        (reply(b"", 500), 5, "fails (500 Internal Server Error); try again when it works"),
        (drop, 5, "too early, or sent no HTTP"),
        (reply(b"", 403), 1, "answered 403 Forbidden"),
        (redirect("/other", 302), 1, "answered 302 Found"),
        (redirect("/other", 301), 1, "answered 301"),
    ],
)
async def test_an_upload_that_fails_names_its_reason(
    client: UrlClient, result: Path, handler: Handler, requests: int, sentence: str
) -> None:
    async with Origin({"/": handler, "/other": reply(b"")}) as origin:
        with pytest.raises(InvalidField) as failure:
            await send(client, f"{origin.url}/", result)
    assert sentence in str(failure.value)
    assert failure.value.field == "result_url"
    assert len(origin.requests) == requests


async def test_a_server_that_refuses_before_it_reads_is_understood(client: UrlClient, tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(413, {"Content-Length": "0"}))
        await writer.drain()
        writer.write_eof()
        while await reader.read(1 << 16):  # as servers do, lest the client's system drops the answer
            pass
        writer.close()
        await writer.wait_closed()

    result = tmp_path / "large"
    result.write_bytes(bytes(20_000_000))
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        with pytest.raises(InvalidField, match="answered 413"):
            await send(client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", result)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_that_keeps_the_method_is_followed(client: UrlClient, result: Path, status: int) -> None:
    async with Origin({"/": redirect("/there", status), "/there": reply(b"")}) as origin:
        await send(client, f"{origin.url}/", result)
    assert [(request.method, request.body == CONTENT) for request in origin.requests] == [("PUT", True)] * 2


async def test_a_redirect_to_a_private_address_is_refused(client: UrlClient, result: Path) -> None:
    async with (
        Origin({"/": reply(b"")}, "127.0.0.2") as inside,
        Origin({"/": redirect(f"{inside.url}/", 307)}) as origin,
    ):
        with pytest.raises(InvalidField, match="not public"):
            await send(client, f"{origin.url}/", result)
    assert inside.connections == 0


async def test_a_server_that_hangs_is_given_up(client: UrlClient, result: Path) -> None:
    started = time.monotonic()
    async with Origin({"/": hang}) as origin:
        with pytest.raises(InvalidField, match=r"took more than 0\.3 s"):
            await send(client, f"{origin.url}/", result, 0.3)
    assert time.monotonic() - started < 10


async def test_a_result_that_is_gone_is_a_fault_of_the_machine(client: UrlClient, tmp_path: Path) -> None:
    async with Origin({"/": reply(b"")}) as origin:
        with pytest.raises(StorageFault):
            await send(client, f"{origin.url}/", tmp_path / "gone" / "result.mp4")
    assert origin.connections == 0


@pytest.mark.parametrize("url", ["s3://bucket/key", "https://10.0.0.1/x", "ftp://host/"])
async def test_an_upload_to_what_is_not_allowed_is_refused(client: UrlClient, result: Path, url: str) -> None:
    with pytest.raises(InvalidField, match=r"must begin with|not public"):
        await send(client, url, result)


# Messages


async def test_a_message_is_posted_and_the_start_of_its_answer_returned(client: UrlClient) -> None:
    handler = reply(b"x" * 5000, 410, {"Retry-After": "7"})
    async with Origin({"/hook": handler}) as origin:
        answer = await post(client, f"{origin.url}/hook", b'{"a": 1}', {"Content-Type": "application/json"}, 10)
    assert (answer.status, answer.headers["retry-after"], answer.body) == (410, "7", b"x" * BODY_BYTES)
    (request,) = origin.requests
    assert (request.method, request.body, request.headers["content-length"]) == ("POST", b'{"a": 1}', "8")
    assert request.headers["content-type"] == "application/json"


async def test_a_message_is_sent_once_and_follows_no_redirect(client: UrlClient) -> None:
    async with Origin({"/500": reply(b"", 500), "/": redirect("/500", 307)}) as origin:
        assert (await post(client, f"{origin.url}/500", b"", {}, 10)).status == 500
        assert (await post(client, f"{origin.url}/", b"", {}, 10)).status == 307
    assert [request.target for request in origin.requests] == ["/500", "/"]


async def test_a_message_that_is_not_answered_fails_within_its_time(client: UrlClient) -> None:
    async with Origin({"/": hang, "/drop": drop}) as origin:
        with pytest.raises(RequestFailed, match=r"within 0\.2 s") as late:
            await post(client, f"{origin.url}/", b"", {}, 0.2)
        with pytest.raises(RequestFailed) as dropped:
            await post(client, f"{origin.url}/drop", b"", {}, 10)
    assert late.value.transient
    assert dropped.value.transient


async def test_an_answer_without_end_is_cut(client: UrlClient) -> None:
    async def endless(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {}))
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with Origin({"/": endless}) as origin:
        answer = await post(client, f"{origin.url}/", b"", {}, 10)
    assert (answer.status, len(answer.body)) == (200, BODY_BYTES)


async def test_a_message_to_a_private_address_is_refused(client: UrlClient) -> None:
    async with Origin({"/": reply(b"")}, "127.0.0.2") as inside:
        with pytest.raises(RefusedUrl, match="not public"):
            await post(client, f"{inside.url}/", b"", {}, 10)
    assert inside.connections == 0


async def test_more_messages_than_connections_are_all_answered(client: UrlClient) -> None:
    async with Origin({"/": reply(b"ok")}) as origin:
        answers = await asyncio.gather(*(post(client, f"{origin.url}/", b"x", {}, 30) for _ in range(120)))
    assert {answer.status for answer in answers} == {200}
    assert origin.connections == 120
