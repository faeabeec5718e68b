"""Helpers for the gateway tests: a fake job, fake models, forms, and a check for files that are left."""

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
    """A job whose video is the bytes of the face, a bar, and the bytes of the speech.

    It waits for `gate`, raises `error` if it is set, and records its requests.
    """

    def __init__(self) -> None:
        self.requests: list[AvatarRequest] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.stand_ins: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.encoder, self.decoder = "x264", ""

    async def __call__(self, request: AvatarRequest, models: InferenceClient) -> AsyncIterator[Progress | RenderResult]:
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield Progress("detect", 0, 1)
            await self.gate.wait()
            if self.error:
                raise self.error
            video = request.folder / "video.mp4"
            video.write_bytes(request.face_path.read_bytes() + b"|" + request.audio_path.read_bytes())
            seconds = {"detect": 0.25, "lip sync": 1.5}
            yield RenderResult(
                path=video,
                container="mp4",
                frames=3,
                fps=Fraction(25),
                duration=0.12,
                seconds=seconds,
                stand_ins=self.stand_ins,
                notes=self.notes,
                encoder=self.encoder,
                decoder=self.decoder,
            )
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def reached(self, jobs: int) -> None:
        """Return when this number of jobs run at once."""
        await eventually(lambda: self.running == jobs)


class ReadyModels(FakeInference):
    """Models that are ready; FakeRender calls none."""

    async def check_ready(self) -> None:
        return None


class DownModels(ReadyModels):
    """Models of a Triton that cannot be reached."""

    async def check_ready(self) -> None:
        raise Unavailable("Triton does not answer at 127.0.0.1:1", retry_after=7)


def service_of(client: httpx.AsyncClient) -> Service:
    """Return the service of the application that `client` calls in this process."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    assert isinstance(transport.app, FastAPI)
    service: Service = transport.app.state.service
    return service


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when `condition` is true; fail if it does not become true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def contents(folder: Path) -> list[Path]:
    """Return all paths below the folder."""
    return sorted(folder.rglob("*"))


def leftovers(work: Path) -> list[Path]:
    """Return all paths below the work folder, except the folders directly in it, which belong to gateways."""
    return [path for path in contents(work) if path.parent != work]


def form(**changes: Any) -> dict[str, Any]:
    """Return the parts of a valid form for httpx, with changes; None omits a field."""
    parts: dict[str, Any] = {
        "face_file": ("face.png", b"a face"),
        "audio_file": ("speech.wav", b"a speech"),
        "avatarFileType": (None, "png"),
        "background": (None, "From Input"),
    }
    parts.update({name: (None, value) if isinstance(value, str) else value for name, value in changes.items()})
    return {name: part for name, part in parts.items() if part is not None}


Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


async def post(url: str) -> httpx.Response:
    """Send a form to a gateway in a real server."""
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.post(url, files=form())
