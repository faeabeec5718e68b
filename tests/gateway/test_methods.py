"""HEAD and OPTIONS, by which balancers and monitors ask; and web sites of other origins."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.gateway.conftest import Live
from tests.support.gateway_fakes import DownModels, Serve, form

ORIGIN = {"Origin": "https://example.com"}
PREFLIGHT = ORIGIN | {"Access-Control-Request-Method": "POST"}
GET_ROUTES = ["/", "/favicon.ico", "/ping", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"]


@pytest.mark.parametrize("path", GET_ROUTES)
async def test_head_is_answered_as_get_is(client: httpx.AsyncClient, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]


async def test_head_of_readiness_follows_triton(serve: Serve) -> None:
    async with serve(models=DownModels()) as client:
        answer = await client.head("/health/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


async def test_a_response_to_head_has_no_body(live: Callable[..., Awaitable[Live]]) -> None:
    gateway = await live()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for path in GET_ROUTES:
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.write(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    rest = await asyncio.wait_for(reader.read(), 30)
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/", "GET, HEAD, OPTIONS, POST"), ("/ping", "GET, HEAD, OPTIONS"), ("/metrics", "GET, HEAD, OPTIONS")],
)
async def test_options_names_the_methods(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    answer = await client.options(path)
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", allowed)


async def test_other_methods_are_answered_with_the_allowed_ones(client: httpx.AsyncClient) -> None:
    for method in ("PUT", "DELETE"):
        answer = await client.request(method, "/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_the_schema_lists_neither(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {method for path in paths.values() for method in path} == {"get", "post", "delete"}


async def test_by_default_every_site_may_read_with_credentials_as_in_the_original(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", files=form(), headers=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert answer.headers["access-control-allow-credentials"] == "true"


async def test_without_credentials_no_origin_is_repeated(serve: Serve) -> None:
    async with serve(cors_credentials=False) as client:
        for answer in (
            await client.post("/", files=form(), headers=ORIGIN),
            await client.options("/", headers=PREFLIGHT),
        ):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers


async def test_only_the_listed_sites_may_read(serve: Serve) -> None:
    async with serve(cors_origins="https://example.com, https://example.org") as client:
        allowed = await client.options("/", headers=PREFLIGHT)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN["Origin"])
        other = {"Origin": "https://example.net"}
        assert (await client.options("/", headers=PREFLIGHT | other)).status_code == 400
        answer = await client.post("/", files=form(), headers=other)
        assert "access-control-allow-origin" not in answer.headers


async def test_no_site_may_read(serve: Serve) -> None:
    async with serve(cors_origins="none") as client:
        answer = await client.post("/", files=form(), headers=ORIGIN)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
