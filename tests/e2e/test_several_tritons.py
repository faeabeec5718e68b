"""Two real Tritons under load, of which one is stopped, killed and started: no call is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.options import Generator
from embedded.ports import find_free
from embedded.server import Triton

# `make test` stops and kills servers in this process: tests/avatar/inference/test_server_pool.py
pytestmark = pytest.mark.slow
SECONDS = 60.0  # after which something that has to happen has not happened
RANDOM = np.random.RandomState(0)
FRAMES = RANDOM.randint(0, 256, (2, 200, 300, 3)).astype(np.uint8)  # large enough for shared memory
FACES, WINDOWS = FRAMES[:, :96, :96], np.zeros((2, 80, 16), np.float32)
SPEECH = np.zeros(16_000, np.float32)


@pytest.fixture(scope="module")
def second(triton: Triton, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Another server, with the token of the first one, on a port that stays the same when it is started again."""
    folder = tmp_path_factory.mktemp("second")
    port = find_free()
    with Triton(tiny_repository, grpc_port=port, log=folder / "triton.log", token=triton.token) as server:
        yield server


@dataclass
class Load:
    """Calls without a pause, of all kinds, at the same time."""

    models: GrpcInferenceClient
    done: int = 0
    errors: list[Exception] = field(default_factory=list)

    async def run(self, number: int) -> None:
        expected = await self.models.segment(FRAMES[0])
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: self.models.detect_faces(FRAMES),
            lambda: self.models.wav2lip(FACES, WINDOWS, Generator.WAV2LIP),
            lambda: self.models.mel_windows(SPEECH, 25.0),
        ]
        while True:
            number += 1
            try:
                await calls[number % len(calls)]()
                np.testing.assert_array_equal(await self.models.segment(FRAMES[0]), expected)
            except Exception as error:
                self.errors.append(error)
            self.done += 1

    async def goes_on(self) -> None:
        """Return after some more calls."""
        count = self.done
        await until(lambda: self.done > count + 50)


@asynccontextmanager
async def load_on(models: GrpcInferenceClient) -> AsyncIterator[Load]:
    load = Load(models)
    tasks = [asyncio.create_task(load.run(number)) for number in range(6)]
    try:
        await load.goes_on()
        yield load
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - it happens in tasks of the client and in the servers
            await asyncio.sleep(0.05)


def healthy(models: GrpcInferenceClient) -> set[str]:
    return {state.address for state in models.servers() if state.healthy}


def calls_of(models: GrpcInferenceClient) -> dict[str, int]:
    """Return how often each server was called."""
    return {state.address: state.calls for state in models.servers()}


@asynccontextmanager
async def calling(*servers: Triton) -> AsyncIterator[GrpcInferenceClient]:
    addresses = [server.grpc_address for server in servers]
    models = GrpcInferenceClient(",".join(addresses), SECONDS, token=servers[0].token)
    try:
        await models.check_ready()
        await until(lambda: healthy(models) == set(addresses))
        yield models
    finally:
        await models.close()


async def test_calls_are_spread_and_a_server_that_is_stopped_loses_none(triton: Triton, second: Triton) -> None:
    async with calling(triton, second) as models:
        before = calls_of(models)
        for _ in range(20):
            await models.segment(FRAMES[0])
        assert [state.calls - before[state.address] for state in models.servers()] == [10, 10]
        async with load_on(models) as load:
            stopping = asyncio.create_task(asyncio.to_thread(second.stop))  # SIGTERM; it ends what is in flight
            await until(lambda: healthy(models) == {triton.grpc_address})
            sent = calls_of(models)
            await load.goes_on()
            await stopping
            await load.goes_on()
            assert calls_of(models)[second.grpc_address] == sent[second.grpc_address]
        assert load.errors == []
        await models.check_ready()


async def test_a_server_that_is_killed_loses_no_call_and_is_found_when_it_is_back(
    triton: Triton, tiny_repository: Path, tmp_path: Path
) -> None:
    port = find_free()
    third = Triton(tiny_repository, grpc_port=port, log=tmp_path / "triton.log", token=triton.token)
    await asyncio.to_thread(third.start)
    try:
        async with calling(triton, third) as models, load_on(models) as load:
            os.kill(third.pid, signal.SIGKILL)
            await until(lambda: healthy(models) == {triton.grpc_address})
            await load.goes_on()
            await asyncio.to_thread(third.stop)
            await asyncio.to_thread(third.start)
            await until(lambda: len(healthy(models)) == 2)
            calls = calls_of(models)
            await load.goes_on()
            assert calls_of(models)[third.grpc_address] > calls[third.grpc_address]
        assert load.errors == []
    finally:
        await asyncio.to_thread(third.stop)
