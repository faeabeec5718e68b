"""A gateway's surroundings for tests: a job that they command, forms, a look at what is left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from avatar.errors import Unavailable
from avatar.events import Progress, RenderResult
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from avatar.testing import FakeInference
from gateway.service import Service


class FakeRender:
    """A job whose video is the face's bytes, a bar, and the speech's bytes.

    It waits for `gate`, raises `error` if there is one, and keeps what it was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[AvatarRequest] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.stand_ins: tuple[str, ...] = ()

    async def __call__(self, request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Progress | RenderResult]:
        self.asked.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield Progress("detect", 0, 1)
            await self.gate.wait()
            if self.error:
                raise self.error
            video = request.folder / "video.mp4"
            video.write_bytes(request.face_path.read_bytes() + b"|" + request.audio_path.read_bytes())
            yield RenderResult(video, "mp4", 3, Fraction(25), 0.12, {"detect": 0.25, "lip sync": 1.5}, self.stand_ins)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def reached(self, jobs: int) -> None:
        """Return when so many jobs run at once."""
        await eventually(lambda: self.running == jobs)


class ReadyModels(FakeInference):
    """Triton is there; FakeRender calls no model."""

    async def check_ready(self) -> None:
        return None


class DownModels(ReadyModels):
    """Triton cannot be reached."""

    async def check_ready(self) -> None:
        raise Unavailable("Triton does not answer at 127.0.0.1:1", retry_after=7)


def service_of(client: httpx.AsyncClient) -> Service:
    """Return the service of the application that runs in this process behind `client`."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    assert isinstance(transport.app, FastAPI)
    service: Service = transport.app.state.service
    return service


async def eventually(what: Callable[[], bool]) -> None:
    """Return when `what` holds; fail when it does not come to hold."""
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - what it looks at tells nobody
            await asyncio.sleep(0.01)


def contents(folder: Path) -> list[Path]:
    """All that lies in the folder and below it."""
    return sorted(folder.rglob("*"))


def leftovers(work: Path) -> list[Path]:
    """All that lies in the work folder, the running gateway's own folder apart."""
    return [path for path in contents(work) if path.parent != work]


def form(**changes: Any) -> dict[str, Any]:
    """The parts of a good form as httpx takes them, with changes; None leaves a field out."""
    parts: dict[str, Any] = {
        "face_file": ("face.png", b"a face"),
        "audio_file": ("speech.wav", b"a speech"),
        "avatarFileType": (None, "png"),
        "background": (None, "From Input"),
    }
    parts.update({name: (None, value) if isinstance(value, str) else value for name, value in changes.items()})
    return {name: part for name, part in parts.items() if part is not None}


Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
