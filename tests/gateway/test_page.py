"""`GET /`: the page for browsers and links for programs, its files and their headers. tests/page drives it."""

import re
from pathlib import Path

import httpx
import pytest

from avatar.errors import Unavailable
from avatar.inference.protocol import ModelInfo
from avatar.options import Generator
from gateway.page.files import FOLDER
from tests.support.api_keys import add_key
from tests.support.gateway_fakes import DownModels, ReadyModels, Serve

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER = {"Accept": CHROME}
SOURCES = re.compile(r'(?:src|href)="([^"#]+)"')
MOST_BYTES = 150_000


async def test_a_browser_gets_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>Talking avatar</title>" in answer.text
    assert "Accept" in answer.headers["vary"]


@pytest.mark.parametrize("accept", ["application/json", "*/*", "", "text/html;q=0, application/json"])
async def test_a_program_gets_links(client: httpx.AsyncClient, accept: str) -> None:
    answer = await client.get("/", headers={"Accept": accept})
    links = answer.json()
    assert answer.status_code == 200
    assert {name: links[name] for name in ("form", "live", "page", "docs", "openapi", "health")} == {
        "form": "/",
        "live": "/v1/live",
        "page": "/",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "health": "/health/ready",
    }
    assert (links["jobs"], links["needs_key"], links["stand_ins"]) == (None, False, [])


async def test_links_name_the_models_that_are_stand_ins(serve: Serve) -> None:
    async with serve(models=ReadyModels(stand_ins=["s3fd", "wav2lip"])) as client:
        assert (await client.get("/")).json()["stand_ins"] == ["s3fd", "wav2lip"]


async def test_without_live_sessions_no_link_leads_to_them(serve: Serve) -> None:
    async with serve(live_sockets=0) as client:
        assert (await client.get("/")).json()["live"] is None


class Silent(ReadyModels):
    """Models of a Triton that does not say what it serves."""

    asked = 0

    async def model_info(self, generator: Generator) -> ModelInfo:
        self.asked += 1
        raise Unavailable("Triton does not answer")


async def test_a_triton_that_does_not_answer_is_not_asked_by_every_caller(serve: Serve) -> None:
    models = Silent()
    async with serve(models=models) as client:
        links = [(await client.get("/")).json() for _ in range(5)]
    assert [each["stand_ins"] for each in links] == [None] * 5
    assert models.asked == 1


async def test_without_a_triton_the_page_comes_all_the_same(serve: Serve) -> None:
    async with serve(models=DownModels()) as client:
        assert (await client.get("/", headers=BROWSER)).status_code == 200
        assert (await client.get("/")).status_code == 200


async def test_the_page_can_be_switched_off(serve: Serve) -> None:
    async with serve(page=False) as client:
        answer = await client.get("/", headers=BROWSER)
        assert (answer.status_code, answer.json()["page"]) == (200, None)
        for path in ("/page/assets/app.js", "/page/openapi.json"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/favicon.ico")).headers["content-type"] == "image/png"


async def test_every_file_of_the_page_comes_from_the_gateway(client: httpx.AsyncClient) -> None:
    page = (await client.get("/", headers=BROWSER)).text
    assert not re.search(r"<script>|<style|style=| on[a-z]+=", page)  # the policy allows none in the page
    sources = [source for source in SOURCES.findall(page) if source.startswith("page/")]
    assert len(sources) >= 3
    assert not re.search(r'(?:src|href)="(?:https?:|//|/)', page)  # a proxy may serve the gateway below a path
    for source in sources:
        assert (await client.get(f"/{source}")).status_code == 200


async def test_the_policy_allows_no_other_host_and_no_script_or_style_in_the_page(client: httpx.AsyncClient) -> None:
    for path in ("/", "/page/assets/app.js"):
        headers = (await client.get(path, headers=BROWSER)).headers
        rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert not re.search(r"https?:|\*|unsafe", headers["content-security-policy"])
        assert (headers["referrer-policy"], headers["x-content-type-options"]) == ("no-referrer", "nosniff")


async def test_a_file_that_the_browser_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/page/assets/app.js")
    again = await client.get("/page/assets/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["absent.js", "..%2ffiles.py", "files.py"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/page/assets/{name}")).status_code == 404


async def test_the_schema_of_the_options_is_there_without_the_docs(serve: Serve) -> None:
    async with serve(docs=False) as client:
        links = (await client.get("/")).json()
        assert (links["docs"], links["openapi"]) == (None, None)
        schema = (await client.get("/page/openapi.json")).json()
        assert "background" in schema["components"]["schemas"]["AvatarForm"]["properties"]


async def test_the_page_needs_no_key_and_its_calls_do(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys, "shop")
    async with serve(api_keys=keys) as client:
        for path in ("/", "/favicon.ico", "/page/assets/app.js", "/page/openapi.json"):
            assert (await client.get(path, headers=BROWSER)).status_code == 200
        assert (await client.get("/")).json()["needs_key"] is True
        assert (await client.post("/")).status_code == 401
        assert (await client.get("/v1/jobs")).status_code == 401


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
