"""Several fake Tritons in this process, each a real gRPC server, and a client that calls them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from avatar.inference.grpc_client import GrpcInferenceClient
from tests.support import media
from tests.support.fake_triton import FakeTriton, serve

IMAGE = np.zeros((8, 8, 3), np.uint8)
SECONDS = 20.0  # after which something that has to happen has not happened


@dataclass
class Cluster:
    """Servers on 127.0.0.1, each of which can be killed and started again."""

    fakes: list[FakeTriton] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    stacks: list[AsyncExitStack] = field(default_factory=list)

    async def add(self) -> None:
        self.fakes.append(FakeTriton())
        self.addresses.append("127.0.0.1:0")
        self.stacks.append(AsyncExitStack())
        await self.start(len(self.fakes) - 1)

    async def start(self, index: int) -> None:
        serving = serve(self.fakes[index], self.addresses[index])
        self.addresses[index] = await self.stacks[index].enter_async_context(serving)

    async def kill(self, index: int) -> None:
        await self.stacks[index].aclose()

    async def kill_all(self) -> None:
        for stack in self.stacks:
            await stack.aclose()

    def drain(self, index: int) -> None:
        """Answer as a server that got SIGTERM: every call is UNAVAILABLE, and the connection stays."""
        self.fakes[index].status = grpc.StatusCode.UNAVAILABLE
        self.fakes[index].requests.clear()

    def shares(self) -> list[int]:
        """Return how many segmentations each server got since the last time."""
        numbers = [len(images_of(fake)) for fake in self.fakes]
        for fake in self.fakes:
            fake.requests.clear()
        return numbers


def images_of(fake: FakeTriton) -> list[object]:
    """Return the segmentations of a job that a server got: a tiny call names no outputs."""
    return [request for request in fake.requests if request.model_name == "segmentation" and request.outputs]


@asynccontextmanager
async def running(count: int) -> AsyncIterator[Cluster]:
    cluster = Cluster()
    try:
        for _ in range(count):
            await cluster.add()
        yield cluster
    finally:
        await cluster.kill_all()


@asynccontextmanager
async def calling(addresses: str, seconds: float = 30, **arguments: Any) -> AsyncIterator[GrpcInferenceClient]:
    models = GrpcInferenceClient(addresses, seconds, **{"shared_memory": False, **arguments})
    try:
        yield models
    finally:
        await models.close()


@asynccontextmanager
async def several(count: int, **arguments: Any) -> AsyncIterator[tuple[Cluster, GrpcInferenceClient]]:
    """A client of servers that are all healthy."""
    async with running(count) as cluster, calling(",".join(cluster.addresses), **arguments) as models:
        await models.segment(IMAGE)
        await until(lambda: healthy(models) == set(cluster.addresses))
        cluster.shares()
        yield cluster, models


def healthy(models: GrpcInferenceClient) -> set[str]:
    return {state.address for state in models.servers() if state.healthy}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in tasks of the client and the servers."""
    await media.until(condition, SECONDS)
