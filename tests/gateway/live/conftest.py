"""Fixtures: a gateway in a real server on the event loop of the test, and the fake model `live`, a real gRPC server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from avatar.inference.grpc_client import GrpcInferenceClient
from tests.gateway.conftest import Live
from tests.support.fake_live import FakeLive
from tests.support.fake_triton import serve as serve_triton
from tests.support.gateway_fakes import eventually


@pytest.fixture
async def models() -> AsyncIterator[FakeLive]:
    """The Triton of `talk`."""
    yield FakeLive()


Talk = Callable[..., Awaitable[Live]]


@pytest.fixture
async def talk(models: FakeLive, live: Callable[..., Awaitable[Live]]) -> AsyncIterator[Talk]:
    """`await talk(live_sockets=1)`: a gateway whose Triton is `models`; at the end no session is left there."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_triton(models))

        async def start(**settings: Any) -> Live:
            client = GrpcInferenceClient(address, settings.pop("triton_seconds", 20.0), shared_memory=False)
            stack.push_async_callback(client.close)
            return await live(models=client, **settings)

        yield start
    await eventually(lambda: not models.sessions)


def close_slowly(monkeypatch: pytest.MonkeyPatch, closed: type[Any]) -> None:
    """Let the objects of a class take a moment longer to close."""
    close = closed.close

    async def close_later(each: object) -> None:
        await asyncio.sleep(0.2)
        await close(each)

    monkeypatch.setattr(closed, "close", close_later)
