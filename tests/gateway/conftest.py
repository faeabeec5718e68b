"""A gateway with a job that tests command: no Triton, no ffmpeg, real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_fakes import FakeRender, ReadyModels, Serve, contents

from avatar.models import Models
from gateway.app import create_app
from gateway.settings import Settings


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def render() -> FakeRender:
    return FakeRender()


@pytest.fixture
def serve(work: Path, render: FakeRender) -> Serve:
    """`async with serve(max_jobs=1) as client`: an application inside this process."""

    @asynccontextmanager
    async def serving(
        models: Models | None = None, job: Any = render, **settings: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(Settings(work_dir=work, **settings), models or ReadyModels(), job)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as client,
        ):
            yield client
        assert contents(work) == []  # whatever a test does, the end leaves nothing

    return serving


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as made:
        yield made
