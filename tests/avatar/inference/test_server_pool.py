"""Several servers, each a real gRPC server in this process: where calls go, and what happens when one is lost."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from avatar.errors import Unavailable
from avatar.inference import server_pool, triton_server
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.options import Generator
from lipsync.arrays import Labels
from lipsync.errors import InvalidInput
from tests.support.fake_triton import FakeTriton, region_of
from tests.support.fake_tritons import IMAGE, SECONDS, Cluster, calling, healthy, images_of, running, several, until

pytestmark = pytest.mark.usefixtures("often")

LARGE = np.zeros((200, 300, 3), np.uint8)


async def under_load(models: GrpcInferenceClient, event: Callable[[], Awaitable[None]]) -> list[object]:
    """Make calls without a pause, let `event` happen, go on for a while; return the results, errors among them."""
    stop, results = asyncio.Event(), list[object]()

    async def caller() -> None:
        while not stop.is_set():
            try:
                results.append(await models.segment(IMAGE))
            except Exception as error:
                results.append(error)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(caller())
        await until(lambda: len(results) > 40)
        await event()
        count = len(results)
        await until(lambda: len(results) > count + 200)
        stop.set()
    return [each for each in results if isinstance(each, Exception)]


async def test_calls_are_spread_evenly() -> None:
    async with several(3) as (cluster, models):
        for _ in range(10):
            await asyncio.gather(*(models.segment(IMAGE) for _ in range(30)))
        together = cluster.shares()
        for _ in range(30):
            await models.segment(IMAGE)
        assert cluster.shares() == [10, 10, 10]
        assert sum(together) == 300
        assert max(together) <= 1.3 * 100
        assert [state.in_flight for state in models.servers()] == [0, 0, 0]


async def test_a_server_that_is_killed_under_load_loses_no_call_and_gets_calls_again_when_it_is_back() -> None:
    async with several(3) as (cluster, models):
        errors = await under_load(models, lambda: cluster.kill(1))
        assert errors == []
        assert healthy(models) == {cluster.addresses[0], cluster.addresses[2]}
        cluster.shares()
        await models.segment(IMAGE)
        assert cluster.shares()[1] == 0
        await cluster.start(1)
        await until(lambda: len(healthy(models)) == 3)
        await asyncio.gather(*(models.segment(IMAGE) for _ in range(30)))
        assert cluster.shares()[1] > 0


async def test_a_server_that_drains_gets_no_calls_although_it_is_still_connected() -> None:
    async with several(2) as (cluster, models):

        async def drain() -> None:
            cluster.drain(0)

        assert await under_load(models, drain) == []
        assert healthy(models) == {cluster.addresses[1]}
        cluster.fakes[0].requests.clear()
        await asyncio.gather(*(models.segment(IMAGE) for _ in range(50)))
        assert images_of(cluster.fakes[0]) == []


async def test_a_server_that_is_idle_and_drains_is_noticed_before_a_call_goes_there() -> None:
    async with several(2) as (cluster, models):
        cluster.drain(0)
        await until(lambda: healthy(models) == {cluster.addresses[1]})
        assert images_of(cluster.fakes[0]) == []


async def test_the_service_is_ready_while_one_server_has_every_model() -> None:
    async with several(2) as (cluster, models):
        cluster.fakes[0].missing = {"wav2lip"}
        cluster.drain(1)
        await until(lambda: healthy(models) <= {cluster.addresses[0]})
        cluster.fakes[0].dead = {"s3fd"}  # each has lost another model
        await until_raises(models.check_ready, "Tritons can serve|not ready")
        cluster.fakes[0].missing, cluster.fakes[0].dead = set(), set()
        await until_passes(models.check_ready)
        await models.segment(IMAGE)


async def until_raises(call: Callable[[], Awaitable[None]], words: str) -> None:
    """Call until it raises Unavailable with these words: what is known of a server is a few seconds old."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(Unavailable, match=words) as raised:
            while True:
                await call()
                await asyncio.sleep(0.05)
    assert raised.value.retry_after > 0


async def until_passes(call: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_without_any_server_calls_are_unavailable_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_pool, "PATIENCE_SECONDS", 0.3)
    async with several(2) as (cluster, models):
        await cluster.kill_all()
        for call in (models.check_ready(), models.segment(IMAGE), models.model_info(Generator.WAV2LIP)):
            with pytest.raises(Unavailable):
                await call
        assert healthy(models) == set()


async def waiting_call(cluster: Cluster, models: GrpcInferenceClient) -> asyncio.Task[Labels]:
    """Kill all servers, and return a call that is made when that is noticed."""
    await cluster.kill_all()
    await until(lambda: healthy(models) == set())
    return asyncio.create_task(models.segment(IMAGE))


async def test_a_call_waits_for_a_server_that_comes_back() -> None:
    async with several(2) as (cluster, models):
        call = await waiting_call(cluster, models)
        await cluster.start(0)
        await call


async def test_a_server_that_answers_nothing_any_more_loses_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_pool, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(server_pool, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(triton_server, "READY_SECONDS", 0.2)
    async with several(2, seconds=60.0) as (cluster, models):
        cluster.fakes[0].hang = True  # as a machine that vanished: its connections stay
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(models.segment(IMAGE) for _ in range(6)))
        # not at once: on a busy machine the other server may miss a question too
        await until(lambda: healthy(models) == {cluster.addresses[1]})


async def test_what_a_model_rejects_is_not_sent_elsewhere() -> None:
    async with several(2) as (cluster, models):
        for fake in cluster.fakes:
            fake.status = grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(InvalidInput):
            await models.segment(IMAGE)
        assert sum(len(images_of(fake)) for fake in cluster.fakes) == 1


async def test_a_server_that_is_full_stays_healthy() -> None:
    async with several(2) as (cluster, models):
        cluster.fakes[0].full = True
        await asyncio.gather(*(models.segment(IMAGE) for _ in range(20)))
        assert healthy(models) == set(cluster.addresses)
        assert sum(state.failures for state in models.servers()) > 0


async def test_calls_fit_every_server_also_while_servers_differ() -> None:
    faces, windows = np.arange(20 * 96 * 96 * 3, dtype=np.uint8).reshape(20, 96, 96, 3), np.zeros((20, 80, 16), "f4")
    async with running(2) as cluster:
        cluster.fakes[0].gpu_batches = {"wav2lip": 256, "s3fd": 16}
        cluster.fakes[1].gpu_batches = {"wav2lip": 8, "s3fd": 4}
        async with calling(",".join(cluster.addresses)) as models:
            await models.check_ready()
            await until(lambda: len(healthy(models)) == 2)
            info = await models.model_info(Generator.WAV2LIP)
            assert (info.generator_net.max_batch, info.detector_net.max_batch) == (8, 4)
            np.testing.assert_array_equal(await models.wav2lip(faces, windows, Generator.WAV2LIP), faces)
            assert rows_of(cluster.fakes[1]) == []  # 20 rows fit the first server only
            await cluster.kill(0)
            np.testing.assert_array_equal(await models.wav2lip(faces, windows, Generator.WAV2LIP), faces)
            assert rows_of(cluster.fakes[1]) == [8, 8, 4]


def rows_of(fake: FakeTriton) -> list[int]:
    sent = [request for request in fake.requests if request.model_name == "wav2lip" and request.outputs]
    return [request.inputs[0].shape[0] for request in sent]


async def test_a_server_without_the_second_generator_is_not_asked_for_it() -> None:
    faces, windows = np.zeros((2, 96, 96, 3), np.uint8), np.zeros((2, 80, 16), np.float32)
    async with running(2) as cluster:
        cluster.fakes[0].unknown = {"wav2lip_gan"}
        async with calling(",".join(cluster.addresses)) as models:
            await models.check_ready()
            await until(lambda: len(healthy(models)) == 2)
            await models.model_info(Generator.WAV2LIP_GAN)
            for _ in range(4):
                await models.wav2lip(faces, windows, Generator.WAV2LIP_GAN)
        got = [sum(each.model_name == "wav2lip_gan" for each in fake.requests) for fake in cluster.fakes]
        assert got == [0, 4]


async def test_shared_memory_is_used_with_the_servers_that_see_it() -> None:
    async with several(2, shared_memory=True) as (cluster, models):
        cluster.fakes[0].shares = True
        for _ in range(6):
            np.testing.assert_array_equal(await models.segment(LARGE), np.full((200, 300), 15))
        near, far = ([region_of(request) for request in images_of(fake)] for fake in cluster.fakes)
        assert len(near) == len(far) == 3
        assert all(near)
        assert not any(far)


async def test_lost_and_found_servers_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "avatar")
    async with several(2) as (cluster, models):
        await cluster.kill(0)
        await until(lambda: len(healthy(models)) == 1)
        await cluster.start(0)
        await until(lambda: len(healthy(models)) == 2)
    said = Counter(record.getMessage().partition(":")[0] for record in caplog.records)
    first, second = cluster.addresses
    assert said[f"Triton at {first} is ready".partition(":")[0]] >= 2
    assert any(f"Triton at {first} gets no calls until it answers" in record.getMessage() for record in caplog.records)
    assert not any(f"{second} gets no calls" in record.getMessage() for record in caplog.records)


async def test_checks_of_readiness_do_not_take_the_turns_of_calls() -> None:
    async with several(3) as (cluster, models):
        for _ in range(6):  # as jobs do
            await models.check_ready()
            await models.segment(IMAGE)
            await models.segment(IMAGE)
        assert cluster.shares() == [4, 4, 4]


async def test_a_call_that_waits_for_a_server_ends_when_the_client_is_closed() -> None:
    async with several(2) as (cluster, models):
        call = await waiting_call(cluster, models)
        await asyncio.sleep(0)
        await models.close()
        with pytest.raises(Unavailable):
            await call
