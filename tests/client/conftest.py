"""Fixtures: a fake server with a client that is connected to it, and a real gateway with a fake render for jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from avatar_client import AvatarClient
from tests.client.fake_server import FakeServer
from tests.support.gateway_fakes import FakeRender
from tests.support.live_gateway import live_gateway

T = TypeVar("T")

FACE, SPEECH = bytes(range(256)) * 2000, b"RIFF" * 300
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
