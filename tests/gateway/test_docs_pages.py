"""The pages /docs and /redoc: they load nothing from elsewhere, and can be switched off."""

import re

import httpx
import pytest

from tests.support.gateway_fakes import Serve

SOURCES = re.compile(r'(?:src|href|spec-url)="([^"]+)"')


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_every_file_of_a_page_comes_from_the_gateway(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.status_code == 200
    sources = SOURCES.findall(answer.text)
    assert len(sources) >= 3
    for source in sources:
        assert not source.startswith(("http:", "https:", "//", "/"))  # a proxy may serve the gateway below a path
        file = await client.get(f"/{source}")
        assert (file.status_code, len(file.content) > 100) == (200, True)
    assert not re.search(r"<script>|<style>| on[a-z]+=", answer.text)  # the policy allows no script in the page


async def test_the_policy_of_a_page_allows_no_other_host(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/redoc", "/docs/assets/swagger-ui-bundle.js"):
        policy = (await client.get(path)).headers["content-security-policy"]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert not re.search(r"https?:|\*", policy)


async def test_the_pages_show_the_schema_of_the_gateway(client: httpx.AsyncClient) -> None:
    start = (await client.get("/docs/assets/start.js")).text
    assert 'url: "openapi.json"' in start
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "Talking avatar"


@pytest.mark.parametrize("name", ["absent.js", "..%2f..%2fcore.py", "core.py"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/docs/assets/{name}")).status_code == 404


async def test_the_pages_can_be_switched_off(serve: Serve) -> None:
    async with serve(docs=False) as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/start.js"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/ping")).status_code == 200


async def test_no_response_is_taken_for_another_type(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/ping", "/nowhere", "/openapi.json"):
        assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"
