"""Downloads by HTTPS from real servers on loopback addresses: which certificates and redirects are accepted."""

from pathlib import Path

import pytest

from jobs.net.addresses import UrlRules
from jobs.net.client import UrlClient
from jobs.net.download import download
from tests.jobs.net.test_download import fixed, read, refusal
from tests.support.http_origin import Origin, redirect, reply
from tests.support.tls_authority import Authority


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "face"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


def https_client(authority: Authority, *addresses: str) -> UrlClient:
    return UrlClient(
        UrlRules.of(["*.example:*"]), resolve=fixed(*addresses), context=authority.client_context(), retry_pause=0.01
    )


async def test_the_certificate_is_checked_for_the_name_though_the_address_is_connected_to(
    authority: Authority, tmp_path: Path, target: Path
) -> None:
    context = authority.server_context("files.example", tmp_path)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    async with Origin({"/": reply(b"file")}, context=context) as origin, https_client(authority, "127.0.0.1") as client:
        await download(client, f"{origin.url_of('files.example')}/", target, field="face_url", max_bytes=9)
        assert read(target) == b"file"
        assert names == ["files.example"]
        assert origin.requests[0].headers["host"] == f"files.example:{origin.port}"
        call = download(client, f"{origin.url_of('other.example')}/", target, field="face_url", max_bytes=9)
        assert "no valid certificate for its host" in await refusal(call, target)
    assert len(origin.requests) == 1


async def test_a_certificate_of_an_unknown_authority_is_refused(
    authority: Authority, tmp_path: Path, target: Path
) -> None:
    context = Authority.make().server_context("files.example", tmp_path)
    async with Origin({"/": reply(b"file")}, context=context) as origin, https_client(authority, "127.0.0.1") as client:
        call = download(client, f"{origin.url_of('files.example')}/", target, field="face_url", max_bytes=9)
        assert "no valid certificate" in await refusal(call, target)


async def test_https_is_not_redirected_to_http(authority: Authority, tmp_path: Path, target: Path) -> None:
    context = authority.server_context("files.example", tmp_path)
    rules = UrlRules.of(["*.example:*"], allow_http=True)
    async with (
        Origin({"/": reply(b"file")}) as plain,
        Origin({"/": redirect(plain.url_of("files.example"))}, context=context) as origin,
        UrlClient(rules, resolve=fixed("127.0.0.1"), context=authority.client_context()) as client,
    ):
        call = download(client, f"{origin.url_of('files.example')}/", target, field="face_url", max_bytes=9)
        assert "redirected from https" in await refusal(call, target)
    assert plain.connections == 0
