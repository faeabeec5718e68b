"""Fixtures: a fake server with a client that is connected to it, and a real gateway with a fake render for jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from avatar_client import AvatarClient
from tests.client.fake_gateway import FakeGateway
from tests.client.fake_server import FakeServer
from tests.support.gateway_fakes import FakeRender
from tests.support.live_gateway import live_gateway

T = TypeVar("T")

FACE, SPEECH = bytes(range(256)) * 2000, b"RIFF" * 300
SHORT_FACE = bytes(range(256)) * 20
VIDEO = FACE + b"|" + SPEECH  # what the fake render makes of them


async def call(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function of the client in a thread: the gateway runs on this event loop."""
    return await asyncio.to_thread(function, *arguments, **options)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[AvatarClient]:
    with AvatarClient(server.address, timeout=30) as client:
        yield client


@pytest.fixture
def render() -> FakeRender:
    return FakeRender()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> dict[str, Any]:
    work = tmp_path / "work"
    work.mkdir()
    return {"work_dir": work, "store": str(tmp_path / "store"), "database_url": database_url, "workers": 2}


@pytest.fixture
async def url(render: FakeRender, settings: dict[str, Any]) -> AsyncIterator[str]:
    async with live_gateway(render, **settings) as url:
        yield url


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway in a thread."""
    with FakeGateway() as running:
        yield running


@pytest.fixture(params=["gRPC", "HTTP"])
def target(request: pytest.FixtureRequest, server: FakeServer, gateway: FakeGateway) -> list[str]:
    """The options for a server that sends the video, over gRPC and over HTTP."""
    gateway.body = SHORT_FACE + SPEECH
    return ["--server", server.address] if request.param == "gRPC" else ["--url", gateway.url]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with the files of a command; it writes to `out`."""
    (tmp_path / "face.jpg").write_bytes(SHORT_FACE)
    (tmp_path / "speech.wav").write_bytes(SPEECH)
    (tmp_path / "out").mkdir()
    return tmp_path
