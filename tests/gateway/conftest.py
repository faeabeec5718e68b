"""Fixtures: a gateway with a fake job that the tests control. Real HTTP, but no Triton and no ffmpeg."""

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
from gateway.__main__ import main
from gateway.app import create_app
from gateway.server import Server, listen
from gateway.service import Service
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
        assert contents(work) == []  # after every test the folder must be empty

    return serving


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client


@pytest.fixture
def failed_start(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`failed_start("--port", "1", AVATAR_MARK="c2pa")`: the exit status and stderr of a start that gets no further.

    It runs in this process, because Python takes seconds to import the gateway.
    """

    def start(*arguments: str, **settings: str) -> tuple[int, str]:
        monkeypatch.setattr("gateway.logging_config.configure", lambda *_: None)  # pytest has the log
        for name, value in {"AVATAR_WORK_DIR": str(work), **settings}.items():
            monkeypatch.setenv(name, value)
        return main(arguments), capsys.readouterr().err

    return start


@dataclass
class Live:
    """A gateway that listens on a port, for tests that need real connections."""

    server: Server
    port: int
    jobs: Admission
    service: Service

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def send(self, data: bytes) -> asyncio.StreamWriter:
        """Open a connection, send the data, and return the writer, still open."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return writer


@pytest.fixture
async def live(work: Path, render: FakeRender) -> AsyncIterator[Callable[..., Awaitable[Live]]]:
    """`await live(max_jobs=1)`: the application in a real server.

    At the end the server is stopped, and its work folder must be empty.
    """
    running: list[tuple[Live, asyncio.Task[None]]] = []

    async def start(models: InferenceClient | None = None, job: Any = render, **settings: Any) -> Live:
        options = Settings(**{"work_dir": work, "shutdown_grace": 0.2, **settings})
        app = create_app(options, models or ReadyModels(), job)
        server = Server(app, options)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        gateway = Live(server, port, app.state.service.jobs, app.state.service)
        running.append((gateway, serving))
        return gateway

    yield start
    for gateway, serving in running:
        gateway.server.should_exit = True
        await asyncio.wait_for(serving, 30)
    assert contents(work) == []


@pytest.fixture
def raw_form() -> bytes:
    """The bytes of a whole HTTP request with a valid form."""
    request = httpx.Request("POST", "http://gateway/", files=form())
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + request.read()
