import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from avatar.errors import Unavailable
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.inference.shared_memory import PREFIX, SharedMemoryPool
from avatar.options import Generator
from avatar.testing import FakeInference
from avatar_client.region_file import FOLDER, boot_seconds
from avatar_client.region_pool import REGION_TTL
from embedded.server import Triton
from lipsync.errors import InvalidInput
from tests.support.region_registry import AsyncFakeRegistry, FakeRegistry

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
RANDOM = np.random.RandomState(0)
FRAMES = RANDOM.randint(0, 256, (3, 160, 200, 3)).astype(np.uint8)
FACES = RANDOM.randint(0, 256, (16, 96, 96, 3)).astype(np.uint8)
WINDOWS = RANDOM.standard_normal((16, 80, 16)).astype(np.float32)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
async def server(registry: FakeRegistry) -> AsyncFakeRegistry:
    return AsyncFakeRegistry(registry)


@pytest.fixture
async def pool(registry: FakeRegistry, server: AsyncFakeRegistry) -> AsyncIterator[SharedMemoryPool]:
    pool = SharedMemoryPool(server, longest_call=60, max_bytes=8 * MIB)
    yield pool
    registry.in_use.clear()
    await pool.close()
    assert server.closed


async def until(done: Callable[[], Awaitable[object]], seconds: float = 60) -> None:
    """Poll until `done` is true: the change happens in another task, thread or process."""
    async with asyncio.timeout(seconds):
        while not await done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_region_of_a_cancelled_acquire_is_given_to_the_next(
    pool: SharedMemoryPool, registry: FakeRegistry, server: AsyncFakeRegistry
) -> None:
    server.gate.clear()
    task = asyncio.create_task(pool.acquire(MIB))
    await server.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.gate.set()
    await until(server.registered)
    await asyncio.sleep(0.05)
    region = await pool.acquire(MIB)
    assert region is not None and {region.name} == registry.regions
    assert not (FOLDER / region.name).exists()


class Regions:
    """The registered regions of a server; some may belong to other processes."""

    def __init__(self, triton: Triton) -> None:
        self._client, self._headers = InferenceServerClient(triton.grpc_address), triton.admin_headers

    async def names(self) -> set[str]:
        return set((await self._client.get_system_shared_memory_status(headers=self._headers)).regions)

    async def unregister(self, name: str) -> None:
        await self._client.unregister_system_shared_memory(name, headers=self._headers)

    async def close(self) -> None:
        await self._client.close()


@asynccontextmanager
async def reaching(triton: Triton) -> AsyncIterator[tuple[GrpcInferenceClient, Regions]]:
    """A client with shared memory, and the registered regions."""
    models, regions = GrpcInferenceClient(triton.grpc_address, token=triton.token), Regions(triton)
    try:
        yield models, regions
    finally:
        await models.close()
        await regions.close()


def mapped_files() -> list[str]:
    """Return the files of regions that this process has mapped; the kernel marks those without a name."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.partition("/dev/shm/")[2] for line in lines if f"/dev/shm/{PREFIX}" in line]  # noqa: S108


async def test_both_transports_give_the_same_results_and_no_region_is_left(triton: Triton) -> None:
    inline = GrpcInferenceClient(triton.grpc_address, shared_memory=False)
    async with reaching(triton) as (models, regions):
        before = await regions.names()
        requests: list[Callable[[GrpcInferenceClient], Awaitable[Any]]] = [
            lambda client: client.detect_faces(FRAMES),
            lambda client: client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP),
            lambda client: client.wav2lip(FACES[:3], WINDOWS[:3], Generator.WAV2LIP_GAN),
            lambda client: client.segment(FRAMES[0]),
        ]
        for send in requests:
            for plain, shared in zip(await send(inline), await send(models), strict=True):
                np.testing.assert_array_equal(shared, plain)
        used = await regions.names() - before
        assert used
        assert mapped_files() and all(file.endswith(" (deleted)") for file in mapped_files())
        await models.close()
        assert not used & await regions.names()
    await inline.close()


async def test_both_transports_accept_a_view_that_repeats_one_face(triton: Triton) -> None:
    repeated = np.broadcast_to(FACES[:1], FACES.shape)
    async with reaching(triton) as (models, _):
        inline = GrpcInferenceClient(triton.grpc_address, shared_memory=False)
        expected = await inline.wav2lip(repeated.copy(), WINDOWS, Generator.WAV2LIP)
        for each in (inline, models):
            np.testing.assert_array_equal(await each.wav2lip(repeated, WINDOWS, Generator.WAV2LIP), expected)
        await inline.close()


async def test_concurrent_calls_get_their_own_results_which_later_calls_do_not_overwrite(triton: Triton) -> None:
    images = [RANDOM.randint(0, 256, (150 + n, 200, 3)).astype(np.uint8) for n in range(8)]
    async with reaching(triton) as (models, _):
        answers = [labels for _ in range(3) for labels in await asyncio.gather(*map(models.segment, images))]
        for image, labels in zip(images * 3, answers, strict=True):
            np.testing.assert_array_equal(labels, await FakeInference().segment(image))


async def test_late_output_of_a_cancelled_call_reaches_no_other_call(triton: Triton) -> None:
    async with reaching(triton) as (models, regions):
        before = await regions.names()
        for n in range(6):
            cancelled = asyncio.create_task(models.detect_faces(FRAMES))
            await asyncio.sleep(0.03 * n)
            cancelled.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cancelled
            labels = await asyncio.gather(*[models.segment(frame) for frame in FRAMES])
            for frame, each in zip(FRAMES, labels, strict=True):
                np.testing.assert_array_equal(each, await FakeInference().segment(frame))
        used = await regions.names() - before

        async def released() -> bool:
            return len(await regions.names() & used) <= idle

        idle = len(FRAMES) + 1  # regions of the segmentations, and of a detection that ended before it was cancelled
        await until(released)  # the regions of the cancelled calls
        await models.close()
        assert not used & await regions.names()


async def test_no_call_fails_when_the_server_has_lost_its_regions(triton: Triton) -> None:
    expected = await FakeInference().segment(FRAMES[0])
    async with reaching(triton) as (models, regions):
        before = await regions.names()
        await models.segment(FRAMES[0])
        known = await regions.names() - before
        for name in known:  # as after a restart
            await regions.unregister(name)
        np.testing.assert_array_equal(await models.segment(FRAMES[0]), expected)

        async def registered_again() -> set[str]:
            np.testing.assert_array_equal(await models.segment(FRAMES[0]), expected)
            return await regions.names() - before

        await until(registered_again)


async def test_invalid_input_is_still_rejected(triton: Triton) -> None:
    too_many = np.concatenate([FRAMES] * 2)
    async with reaching(triton) as (models, regions):
        before = await regions.names()
        with pytest.raises(InvalidInput):
            await models.detect_faces(too_many)
        await models.segment(FRAMES[0])
        assert await regions.names() - before


@pytest.mark.live
async def test_a_restart_of_the_server_between_calls_is_handled(tiny_repository: Path, tmp_path: Path) -> None:
    small = tmp_path / "repository"
    small.mkdir()
    (small / "segmentation").symlink_to(tiny_repository / "segmentation")
    expected = await FakeInference().segment(FRAMES[0])
    first = Triton(small, token="the-token-of-both-servers")  # noqa: S106
    await asyncio.to_thread(first.start)
    models, regions = GrpcInferenceClient(first.grpc_address, token=first.token), Regions(first)
    try:
        await models.segment(FRAMES[0])
        (old,) = await regions.names()
        await asyncio.to_thread(first.stop)
        port = int(first.grpc_address.rpartition(":")[2])
        with Triton(small, grpc_port=port, token=first.token) as second:
            assert second.grpc_address == first.grpc_address
            await until(lambda: registered_after_a_call(models, regions))
            np.testing.assert_array_equal(await models.segment(FRAMES[0]), expected)
            assert old not in await regions.names()
            await models.close()
            assert not await regions.names()
    finally:
        await models.close()
        await regions.close()
        await asyncio.to_thread(first.stop)


async def registered_after_a_call(models: GrpcInferenceClient, regions: Regions) -> set[str]:
    """Return the registered regions after one more call; none if the server cannot be reached yet."""
    try:
        await models.segment(FRAMES[0])
    except Unavailable as error:
        assert "cannot be reached" in str(error)
        return set()
    return await regions.names()


KILLED = """
import asyncio, os, signal, sys
import numpy as np
from avatar.inference.grpc_client import GrpcInferenceClient

async def main():
    models = GrpcInferenceClient(sys.argv[1], token=os.environ["AVATAR_TRITON_TOKEN"])
    await models.segment(np.zeros((200, 200, 3), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_killed_client_leaves_no_file(triton: Triton) -> None:
    async with reaching(triton) as (_, regions):
        before = await regions.names()
        arguments = [sys.executable, "-c", KILLED, triton.grpc_address]
        env = {**os.environ, "AVATAR_TRITON_TOKEN": triton.token}
        done = await asyncio.to_thread(subprocess.run, arguments, cwd=ROOT, env=env)
        assert done.returncode == -signal.SIGKILL
        (left,) = await regions.names() - before
        assert not [path for path in FOLDER.iterdir() if left in path.name]
        end = int(left.removeprefix(PREFIX).partition("-")[0])  # after that time any other client removes it
        assert boot_seconds() < end < boot_seconds() + REGION_TTL + 200
        await regions.unregister(left)
