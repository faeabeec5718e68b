"""A gateway with a job that tests command: no Triton, no ffmpeg, real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from avatar.inference.protocol import InferenceClient
from avatar.resources.admission import Admission
from gateway.app import create_app
from gateway.server import Server, listen
from gateway.settings import Settings
from tests.support.gateway_fakes import FakeRender, ReadyModels, Serve, contents, eventually, form


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
        models: InferenceClient | None = None, job: Any = render, **settings: Any
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


@dataclass
class Live:
    """A gateway that listens: for what needs real connections."""

    server: Server
    port: int
    jobs: Admission

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def send(self, data: bytes) -> asyncio.StreamWriter:
        """Open a connection, write, and leave it open."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return writer


@pytest.fixture
async def live(work: Path, render: FakeRender) -> AsyncIterator[Callable[..., Awaitable[Live]]]:
    """`await live(max_jobs=1)`: the application behind a real server, stopped and looked over at the end."""
    running: list[tuple[Live, asyncio.Task[None]]] = []

    async def start(models: InferenceClient | None = None, job: Any = render, **settings: Any) -> Live:
        read = Settings(**{"work_dir": work, "shutdown_grace": 0.2, **settings})
        app = create_app(read, models or ReadyModels(), job)
        server = Server(app, read)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        made = Live(server, port, app.state.service.jobs)
        running.append((made, serving))
        return made

    yield start
    for made, serving in running:
        made.server.should_exit = True
        await asyncio.wait_for(serving, 30)
    assert contents(work) == []


@pytest.fixture
def raw_form() -> bytes:
    """A good form as the bytes of a whole HTTP request."""
    request = httpx.Request("POST", "http://gateway/", files=form())
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + request.read()
