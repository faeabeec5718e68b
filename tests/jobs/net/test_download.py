"""Downloads from real servers on loopback addresses, which the rules of a test allow."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from avatar.errors import InvalidField, StorageFault, TooLarge
from jobs.net.addresses import Address, UrlRules
from jobs.net.client import UrlClient
from jobs.net.download import Downloaded, download
from jobs.net.errors import RefusedUrl
from jobs.store import Store
from tests.support.http_origin import Handler, Origin, Received, head, in_turn, redirect, reply
from tests.support.seaweedfs import BUCKET, SeaweedFS

LIMIT = 3_000_000

pytestmark = pytest.mark.xdist_group("seaweedfs")

Fetch = Callable[..., Coroutine[None, None, Downloaded]]


def fixed(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[Address]]]:
    """Return a resolver that gives the next address for each question, and the last one for all that follow."""
    left = list(addresses)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [IPv4Address(left.pop(0) if len(left) > 1 else left[0])]

    return resolve


@pytest.fixture
async def client() -> AsyncIterator[UrlClient]:
    async with UrlClient(UrlRules.of(["127.0.0.1:*"], allow_http=True), retry_pause=0.01) as client:
        yield client


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "face"


@pytest.fixture
def fetch(client: UrlClient, target: Path) -> Fetch:
    async def fetch(url: str, seconds: float | None = None) -> Downloaded:
        return await download(client, url, target, field="face_url", max_bytes=LIMIT, seconds=seconds)

    return fetch


def read(path: Path) -> bytes:
    return path.read_bytes()


def exists(path: Path) -> bool:
    return path.exists()


async def refusal(call: Awaitable[Downloaded], target: Path, error: type[Exception] = InvalidField) -> str:
    """Return the sentence that a download fails with; it must leave no file."""
    with pytest.raises(error) as failure:
        await call
    assert not exists(target)
    assert str(failure.value).startswith("face_url: ")
    return str(failure.value)


def sent(start: bytes, *blocks: bytes, pause: float = 0.0) -> Handler:
    """Send bytes as they are, with a pause after each block, and close the connection."""

    async def handle(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for block in blocks:
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)

    return handle


@pytest.mark.parametrize("size", [0, 1, 1 << 20, LIMIT])
async def test_a_file_is_fetched(fetch: Fetch, target: Path, size: int) -> None:
    content = secrets.token_bytes(size)
    async with Origin({"/face.png?x=1&y=%20": reply(content, headers={"Content-Type": "image/png"})}) as origin:
        found = await fetch(f"{origin.url}/face.png?x=1&y=%20")
    assert found == Downloaded(size, "image/png")
    assert read(target) == content
    request = origin.requests[0]
    assert request.headers["host"] == f"127.0.0.1:{origin.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"].startswith("talking-avatar/")
    assert not {"cookie", "authorization", "referer"} & set(request.headers)


async def test_a_file_without_a_length_is_fetched(fetch: Fetch, target: Path) -> None:
    content = secrets.token_bytes(200_000)
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    handlers = {
        "/chunked": sent(head(200, {"Transfer-Encoding": "chunked"}), chunked),
        "/close": sent(head(200, {}), content),
    }
    async with Origin(handlers) as origin:
        for path in handlers:
            assert (await fetch(f"{origin.url}{path}")).size == len(content)
            assert read(target) == content


async def test_a_file_over_the_limit_is_refused_before_it_is_read(fetch: Fetch, target: Path) -> None:
    async with Origin({"/": sent(head(200, {"Content-Length": str(LIMIT + 1)}))}) as origin:
        assert f"more than {LIMIT} bytes" in await refusal(fetch(f"{origin.url}/"), target, TooLarge)
    assert len(origin.requests) == 1


async def test_a_file_over_the_limit_is_refused_without_a_length(fetch: Fetch, target: Path) -> None:
    endless = sent(head(200, {}), *[bytes(1 << 16)] * (LIMIT // (1 << 16) + 2))
    async with Origin({"/": endless}) as origin:
        assert f"more than {LIMIT} bytes" in await refusal(fetch(f"{origin.url}/"), target, TooLarge)


@pytest.mark.parametrize(
    "handler",
    [
        sent(head(200, {"Content-Length": "1000000"}), *[b"drip"] * 1000, pause=0.02),
        sent(b"", *[b"x"] * 1000, pause=0.02),
        sent(head(200, {}), b"silence", pause=60),
    ],
    ids=["drip of the body", "drip of the head", "silence"],
)
async def test_a_slow_server_is_given_up(fetch: Fetch, target: Path, handler: Handler) -> None:
    started = time.monotonic()
    async with Origin({"/": handler}) as origin:
        assert "took more than 0.3 s" in await refusal(fetch(f"{origin.url}/", seconds=0.3), target)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("status", "requests", "sentence"),
    [
        (404, 1, "answered 404 Not Found"),
        (403, 1, "answered 403 Forbidden"),
        (599, 3, r"fails (599); try again when it works"),
        (500, 3, r"fails (500 Internal Server Error); try again when it works"),
        (503, 3, r"fails (503 Service Unavailable); try again when it works"),
        (429, 3, r"fails (429 Too Many Requests); try again when it works"),
        (304, 1, "answered 304"),
        (300, 1, "answered 300"),
    ],
)
async def test_an_error_of_the_server_is_named(
    fetch: Fetch, target: Path, status: int, requests: int, sentence: str
) -> None:
    async with Origin({"/": reply(b"details that stay there", status)}) as origin:
        message = await refusal(fetch(f"{origin.url}/"), target)
    assert sentence in message
    assert "details" not in message
    assert len(origin.requests) == requests


async def test_a_server_that_fails_once_is_asked_again(fetch: Fetch, target: Path) -> None:
    truncated = sent(head(200, {"Content-Length": "1000"}), b"half")
    async with Origin({"/": in_turn(reply(b"", 500), truncated, reply(b"all"))}) as origin:
        assert (await fetch(f"{origin.url}/")).size == 3
    assert read(target) == b"all"


@pytest.mark.parametrize(
    "handler",
    [
        sent(head(200, {"Content-Length": "1000"}), b"half"),
        sent(head(200, {"Transfer-Encoding": "chunked"}), b"3e8\r\nhalf"),
        sent(b""),
        sent(b"\x16\x03\x01 not HTTP\r\n\r\n"),
        sent(b"HTTP/1.1 200 OK\r\n" + b"X-Header: " + b"a" * 200_000),
    ],
    ids=["length", "chunked", "nothing", "no http", "endless head"],
)
async def test_a_broken_response_is_an_error(fetch: Fetch, target: Path, handler: Handler) -> None:
    async with Origin({"/": handler}) as origin:
        message = await refusal(fetch(f"{origin.url}/"), target)
    assert "too early, or sent no HTTP" in message or "was lost" in message


@pytest.mark.parametrize(
    "content_type", ["text/html", "Text/HTML; charset=utf-8", "application/json", "multipart/mixed"]
)
async def test_a_page_in_place_of_a_file_is_refused(fetch: Fetch, target: Path, content_type: str) -> None:
    async with Origin({"/": reply(b"<html>", headers={"Content-Type": content_type})}) as origin:
        assert "not media; give the URL of the file itself" in await refusal(fetch(f"{origin.url}/"), target)


async def test_a_compressed_file_is_refused(fetch: Fetch, target: Path) -> None:
    async with Origin({"/": reply(b"...", headers={"Content-Encoding": "gzip"})}) as origin:
        assert "compressed ('gzip')" in await refusal(fetch(f"{origin.url}/"), target)


async def test_redirects_are_followed(fetch: Fetch, target: Path) -> None:
    handlers = {"/1": redirect("/2"), "/2": redirect("3", 307), "/3": redirect("?4", 301), "/3?4": reply(b"file")}
    async with Origin(handlers) as origin:
        assert (await fetch(f"{origin.url}/1")).size == 4
        assert [request.target for request in origin.requests] == list(handlers)


async def test_more_than_three_redirects_are_refused(fetch: Fetch, target: Path) -> None:
    async with Origin({"/": redirect("/")}) as origin:
        assert "redirected more than 3 times" in await refusal(fetch(f"{origin.url}/"), target)
    assert len(origin.requests) == 4


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("http://169.254.169.254/latest/meta-data/", "not public"),
        ("http://127.0.0.2:{port}/secret", "not public"),
        ("http://[::ffff:127.0.0.2]/secret", "not public"),
        ("http://0x7f.2/", "not public"),
        ("ftp://127.0.0.1/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("http://user:secret@127.0.0.1:{port}/", "user name or a password"),
        ("http://127.0.0.1:99999/", "port 99999"),
        ("http://[::1", "something that is no URL"),
        ("http://xn--ls8h.invalid/", "unknown; check its name"),
    ],
)
async def test_a_redirect_is_checked_like_the_url(fetch: Fetch, target: Path, location: str, sentence: str) -> None:
    async with (
        Origin({"/secret": reply(b"secret")}, "127.0.0.2") as inside,
        Origin({"/": redirect(location.format(port=inside.port))}) as origin,
    ):
        assert sentence in await refusal(fetch(f"{origin.url}/"), target)
    assert inside.connections == 0


async def test_addresses_that_are_not_allowed_are_not_connected_to(target: Path) -> None:
    async with Origin({"/": reply(b"secret")}) as origin, UrlClient(UrlRules.of(allow_http=True)) as client:
        message = await refusal(download(client, f"{origin.url}/", target, field="face_url", max_bytes=9), target)
    assert "an address that is not public" in message
    assert origin.connections == 0


async def test_a_dns_server_that_changes_its_answer_gains_nothing(target: Path) -> None:
    """The first answer is allowed, the next ones are not: the check passes, and the connection is refused."""
    rules = UrlRules.of(["127.0.0.1:*"], allow_http=True)
    async with (
        Origin({"/": reply(b"secret")}, "127.0.0.2") as inside,
        UrlClient(rules, resolve=fixed("127.0.0.1", "127.0.0.2")) as client,
    ):
        url = inside.url_of("rebinding.example")
        await client.check(url)
        call = download(client, f"{url}/", target, field="face_url", max_bytes=9)
        assert "not public" in await refusal(call, target)
    assert inside.connections == 0


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(target: Path) -> None:
    """A second question would be answered with another address, but none is asked for a connection."""
    asked = []

    async def resolve(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return [IPv4Address("127.0.0.1" if len(asked) == 1 else "127.0.0.2")]

    async with (
        Origin({"/": reply(b"public")}) as origin,
        Origin({"/": reply(b"secret")}, "127.0.0.2", origin.port) as inside,
        UrlClient(UrlRules.of(["127.0.0.1:*"], allow_http=True), resolve=resolve) as client,
    ):
        url = f"{origin.url_of('rebinding.example')}/"
        await download(client, url, target, field="face_url", max_bytes=9)
        assert read(target) == b"public"
        assert asked == ["rebinding.example"]
        with pytest.raises(InvalidField, match="not public"):  # and each connection is checked
            await download(client, url, target, field="face_url", max_bytes=9)
    assert inside.connections == 0
    assert origin.requests[0].headers["host"] == f"rebinding.example:{origin.port}"


async def test_the_next_address_is_tried_if_the_first_does_not_answer(target: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [IPv4Address("127.0.0.3"), IPv4Address("127.0.0.1")]

    rules = UrlRules.of(["files.example:*"], allow_http=True)
    async with Origin({"/": reply(b"file")}) as origin, UrlClient(rules, resolve=resolve) as client:
        await download(client, f"{origin.url_of('files.example')}/", target, field="face_url", max_bytes=9)
    assert read(target) == b"file"


async def test_a_host_that_does_not_exist_is_an_error_of_the_field(target: Path) -> None:
    async def unknown(host: str, port: int) -> Sequence[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with UrlClient(UrlRules.of(), resolve=unknown) as client:
        call = download(client, "https://nowhere.example/", target, field="face_url", max_bytes=9)
        assert "unknown; check its name" in await refusal(call, target)


async def test_a_dns_server_that_hangs_is_an_error_of_the_field(target: Path) -> None:
    async def hang(host: str, port: int) -> Sequence[Address]:
        await asyncio.sleep(60)
        return []

    async with UrlClient(UrlRules.of(seconds=0.2), resolve=hang) as client:
        call = download(client, "https://slow.example/", target, field="face_url", max_bytes=9)
        assert "took more than 0.2 s" in await refusal(call, target)


async def test_a_server_that_is_down_is_an_error_of_the_field(fetch: Fetch, target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "cannot be reached" in await refusal(fetch(f"http://127.0.0.1:{port}/"), target)


async def test_a_folder_that_was_removed_is_a_fault_of_the_machine(client: UrlClient, tmp_path: Path) -> None:
    async with Origin({"/": reply(b"file")}) as origin:
        with pytest.raises(StorageFault):
            await download(client, f"{origin.url}/", tmp_path / "gone" / "face", field="face_url", max_bytes=9)


async def test_a_download_that_is_canceled_leaves_nothing(fetch: Fetch, target: Path) -> None:
    async with Origin({"/": sent(head(200, {}), bytes(2_000_000), pause=60)}) as origin:
        task = asyncio.create_task(fetch(f"{origin.url}/"))
        for _ in range(1000):
            if exists(target) and read(target):
                break
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not exists(target)


# s3://


async def test_an_object_of_an_allowed_bucket_is_fetched(
    s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, target: Path, tmp_path: Path
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    content = secrets.token_bytes(100_000)
    (tmp_path / "source").write_bytes(content)
    await Store.open(s3_server.url("uploads")).put_file("face", tmp_path / "source", content_type="image/png")
    async with UrlClient(UrlRules.of(s3_buckets=[BUCKET])) as client:

        def fetch(key: str, limit: int = LIMIT) -> Awaitable[Downloaded]:
            return download(client, f"s3://{BUCKET}/{key}", target, field="face_url", max_bytes=limit)

        assert await fetch("uploads/face") == Downloaded(len(content), "image/png")
        assert read(target) == content
        assert "no such object" in await refusal(fetch("uploads/none"), target)
        assert "more than 99 bytes" in await refusal(fetch("uploads/face", 99), target, TooLarge)
        call = download(client, "s3://other/face", target, field="face_url", max_bytes=LIMIT)
        assert "a bucket that this service does not read" in await refusal(call, target)


def test_a_refusal_names_no_address() -> None:
    with pytest.raises(RefusedUrl) as refused:
        UrlRules.of().check_addresses("intranet", 443, [IPv4Address("10.1.2.3")])
    assert "10.1.2.3" not in str(refused.value)
