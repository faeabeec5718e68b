"""API keys over HTTP: who may call what, and what an owner of a key may have at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from tests.support.api_keys import add_key, keys_command
from tests.support.gateway_fakes import FakeRender, Serve, form

CLOSED = [("POST", "/"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing")]
CLOSED += [("HEAD", "/metrics"), ("POST", "/ping/"), ("GET", "/v1/jobs")]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
async def key(keys: Path) -> str:
    return add_key(keys, "acme")


@pytest.fixture
async def closed(serve: Serve, keys: Path, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that needs keys."""
    async with serve(api_keys=keys) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_without_a_key_every_call_is_answered_with_401(closed: httpx.AsyncClient, method: str, path: str) -> None:
    response = await closed.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert method == "HEAD" or "API key" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/ping", "/health/live", "/health/ready"])
async def test_probes_need_no_key(closed: httpx.AsyncClient, path: str) -> None:
    assert (await closed.get(path)).status_code == 200


async def test_a_browser_may_ask_and_read_the_rejection(closed: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://example.com"}
    preflight = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert (await closed.options("/", headers=preflight)).status_code == 200
    assert (await closed.options("/")).status_code == 204
    rejected = await closed.get("/metrics", headers=origin)
    assert rejected.status_code == 401
    assert "access-control-allow-origin" in rejected.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer KEY"},
        {"Authorization": "bearer   KEY "},
        {"X-Api-Key": "KEY"},
        {"Authorization": "Basic bWU6bWU=", "X-Api-Key": "KEY"},  # the login of a proxy, and the key of the gateway
    ],
)
async def test_a_key_is_sent_in_either_header(closed: httpx.AsyncClient, key: str, headers: dict[str, str]) -> None:
    with_key = {name: value.replace("KEY", key) for name, value in headers.items()}
    assert (await closed.post("/", files=form(), headers=with_key)).status_code == 200


@pytest.mark.parametrize("sent", ["avk_wrong", "KEYx", "kEY", "ключ".encode().decode("latin-1")])
async def test_another_key_is_rejected(closed: httpx.AsyncClient, key: str, sent: str) -> None:
    wrong = sent.replace("KEY", key).replace("kEY", key.swapcase())
    response = await closed.get("/metrics", headers=[(b"x-api-key", wrong.encode("latin-1"))])
    assert response.status_code == 401
    assert wrong not in response.text


async def test_a_key_that_is_revoked_is_rejected_at_once(closed: httpx.AsyncClient, keys: Path, key: str) -> None:
    assert (await closed.get("/metrics", headers=bearer(key))).status_code == 200
    keys_command("revoke", "acme", file=keys)
    assert (await closed.get("/metrics", headers=bearer(key))).status_code == 401


async def test_a_rejected_body_is_not_read(closed: httpx.AsyncClient, render: FakeRender) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    response = await closed.post("/", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert response.status_code == 401
    assert render.requests == []


async def test_readiness_names_a_broken_file_and_the_keys_stay_valid(
    closed: httpx.AsyncClient, keys: Path, key: str
) -> None:
    await asyncio.to_thread(keys.write_text, "broken")
    ready = await closed.get("/health/ready")
    assert ready.status_code == 200
    assert "line 1" in ready.json()["api_keys_fault"]
    assert (await closed.get("/metrics", headers=bearer(key))).status_code == 200


async def test_a_key_may_send_so_many_forms_in_a_minute_and_another_key_its_own(serve: Serve, keys: Path) -> None:
    first, second = add_key(keys, "acme", "--uploads-per-minute", "2"), add_key(keys, "other")
    async with serve(api_keys=keys) as client:
        statuses = [(await client.post("/", files=form(), headers=bearer(first))).status_code for _ in range(2)]
        assert statuses == [200, 200]
        rejected = await client.post("/", files=form(), headers=bearer(first))
        assert rejected.status_code == 429
        assert rejected.json()["code"] == "too_many_uploads"
        assert 1 <= int(rejected.headers["retry-after"]) <= 60
        assert (await client.get("/metrics", headers=bearer(first))).status_code == 200
        assert (await client.post("/", files=form(), headers=bearer(second))).status_code == 200


async def test_a_key_may_have_so_many_running_forms(serve: Serve, keys: Path, render: FakeRender) -> None:
    first, second = add_key(keys, "acme", "--running", "1"), add_key(keys, "other")
    render.gate.clear()
    async with serve(api_keys=keys, max_jobs=4, max_jobs_per_client=0) as client:
        running = asyncio.create_task(client.post("/", files=form(), headers=bearer(first)))
        await render.reached(1)
        rejected = await client.post("/", files=form(), headers=bearer(first))
        assert rejected.status_code == 429
        assert rejected.json()["code"] == "too_many_running"
        assert int(rejected.headers["retry-after"]) >= 1
        other = asyncio.create_task(client.post("/", files=form(), headers=bearer(second)))
        await render.reached(2)
        render.gate.set()
        assert [(await each).status_code for each in (running, other)] == [200, 200]
        assert (await client.post("/", files=form(), headers=bearer(first))).status_code == 200


async def test_rejections_are_counted(closed: httpx.AsyncClient, key: str) -> None:
    await closed.get("/metrics")
    text = (await closed.get("/metrics", headers=bearer(key))).text
    assert 'avatar_errors_total{kind="Unauthorized"} 1.0' in text
    assert 'avatar_jobs_rejected_total{reason="key"} 0.0' in text


def test_a_gateway_without_its_file_of_keys_does_not_start(
    keys: Path, failed_start: Callable[..., tuple[int, str]]
) -> None:
    status, printed = failed_start("--port", "0", AVATAR_API_KEYS=str(keys))
    assert status == 2
    assert str(keys) in printed
    assert "python -m jobs keys add NAME" in printed
