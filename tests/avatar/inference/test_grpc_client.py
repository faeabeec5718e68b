import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from avatar.errors import AvatarError, ClientError, Unavailable
from avatar.inference import readiness
from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.inference.protocol import ServedNet
from avatar.inference.readiness import NEEDED
from avatar.inference.triton_server import REQUIRED_MODELS
from avatar.options import Generator
from avatar.testing import FakeInference
from embedded.server import Triton
from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.face_crop import crop
from tests.support.fake_triton import FakeTriton, region_of, serve
from tests.support.fake_tritons import until
from tests.support.triton_calls import caller

IMAGE = np.zeros((8, 8, 3), np.uint8)
FACE = np.zeros((1, 96, 96, 3), np.uint8)


@asynccontextmanager
async def serving(
    seconds: float = 30, *, shared_memory: bool = True
) -> AsyncIterator[tuple[FakeTriton, GrpcInferenceClient]]:
    servicer = FakeTriton()
    async with serve(servicer) as address:
        models = GrpcInferenceClient(address, seconds, shared_memory=shared_memory)
        try:
            yield servicer, models
        finally:
            await models.close()


async def test_tensors_are_sent_and_received_by_name() -> None:
    async with serving() as (server, models):
        labels = await models.segment(IMAGE)
    np.testing.assert_array_equal(labels, np.full((8, 8), 15))
    (sent,) = server.requests
    assert sent.model_name == "segmentation"
    assert [(i.name, i.datatype, list(i.shape)) for i in sent.inputs] == [("image", "UINT8", [8, 8, 3])]
    assert [output.name for output in sent.outputs] == ["labels"]


@pytest.mark.parametrize("status", ["UNAVAILABLE", "NOT_FOUND", "RESOURCE_EXHAUSTED", "CANCELLED"])
async def test_a_server_that_cannot_serve_is_unavailable(status: str) -> None:
    async with serving() as (server, models):
        server.status = grpc.StatusCode[status]
        with pytest.raises(Unavailable) as error:
            await models.segment(IMAGE)
    assert error.value.retry_after > 0
    assert "secret" not in str(error.value)


async def test_a_response_that_takes_too_long_is_unavailable() -> None:
    async with serving(seconds=0.1) as (server, models):
        server.hang = True
        with pytest.raises(Unavailable, match="in time"):
            await models.segment(IMAGE)


async def test_a_server_on_another_machine_receives_all_tensors_by_grpc(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "avatar")
    image = np.zeros((200, 300, 3), np.uint8)
    async with serving() as (server, models):
        for _ in range(3):
            np.testing.assert_array_equal(await models.segment(image), np.full((200, 300), 15))
    assert [bytes(sent.raw_input_contents[0]) for sent in server.requests] == [image.tobytes()] * 3
    assert [call for call, _ in server.calls].count("register") == 1
    assert [record.message for record in caplog.records if "answers" not in record.message] == [
        "frames are sent to Triton by gRPC, not through shared memory: Triton does not see this process's memory"
    ]


async def test_shared_memory_that_is_disabled_is_not_tried() -> None:
    async with serving(shared_memory=False) as (server, models):
        await models.segment(np.zeros((200, 300, 3), np.uint8))
    assert [call for call, _ in server.calls] == ["segmentation"]


@pytest.mark.parametrize("late", [False, True], ids=["cancelled", "not answered in time"])
async def test_a_region_that_the_server_may_still_use_is_not_given_to_another_call(late: bool) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    async with serving(seconds=3 if late else 30) as (server, models):
        server.shares = server.hang = True
        task = asyncio.create_task(models.segment(image))
        await until(lambda: bool(server.requests))
        used = region_of(server.requests[0])
        server.in_use = {used}
        if not late:
            task.cancel()
        with pytest.raises(Unavailable if late else asyncio.CancelledError):
            await task
        server.hang = False
        for _ in range(3):
            np.testing.assert_array_equal(await models.segment(image), np.full((200, 300), 15))
        (another,) = {region_of(request) for request in server.requests[1:]}  # one region, which is reused
        assert another not in ("", used)
        assert used in server.regions
        server.in_use.clear()
        await models.close()
        assert not server.regions


async def test_every_call_has_a_deadline() -> None:
    async with serving(seconds=50) as (server, models):
        await models.check_ready()
        await models.model_info(Generator.WAV2LIP)
        await models.mel_windows(np.zeros(3200, np.float32), 25.0)
        await models.detect_faces(IMAGE[None])
        windows = np.zeros((1, 80, 16), np.float32)
        await models.wav2lip(FACE, windows, Generator.WAV2LIP)
        await models.segment(IMAGE)
    received = {call for call, _ in server.calls}
    assert received == {
        "server ready",
        "model ready",
        "config",
        "mel_spectrogram",
        "s3fd",
        "face_nms",
        "wav2lip",
        "detect_faces",
        "segmentation",
    }
    assert [call for call, seconds in server.calls if seconds is None or seconds > 51] == []


async def test_input_that_a_model_rejects_is_invalid_input() -> None:
    async with serving() as (server, models):
        server.status = grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(InvalidInput):
            await models.segment(IMAGE)


async def test_input_that_does_not_fit_the_table_is_not_sent() -> None:
    async with serving() as (server, models):
        with pytest.raises(InvalidInput, match="image: UINT8"):
            await models.segment(IMAGE.astype(np.float32))
        with pytest.raises(InvalidInput, match="face: UINT8"):
            await models.wav2lip(IMAGE[None], np.zeros((1, 80, 16), np.float32), Generator.WAV2LIP)
        assert not server.requests


@pytest.mark.parametrize("status", ["INTERNAL", "UNKNOWN", "UNIMPLEMENTED"])
async def test_a_failing_model_is_a_500_without_its_message(status: str) -> None:
    async with serving() as (server, models):
        server.status = grpc.StatusCode[status]
        with pytest.raises(AvatarError) as error:
            await models.segment(IMAGE)
    assert error.value.status == 500
    assert not isinstance(error.value, ClientError | Unavailable)
    assert "secret" not in str(error.value)
    assert "secret" in str(error.value.__cause__)  # for the log


async def test_a_server_with_every_model_is_ready() -> None:
    async with serving() as (_, models):
        await models.check_ready()


@pytest.mark.parametrize("model", [model.name for model in REQUIRED_MODELS])
async def test_a_server_without_a_model_is_not_ready(model: str) -> None:
    async with serving() as (server, models):
        server.missing = {model}
        with pytest.raises(Unavailable, match=rf"not ready: {model}$"):
            await models.check_ready()


@pytest.mark.parametrize("model", [model.name for model in NEEDED])
async def test_a_model_whose_process_died_is_not_ready_and_is_named(model: str) -> None:
    async with serving() as (server, models):
        server.dead = {model}
        with pytest.raises(Unavailable, match=rf"not ready: {model} cannot be reached: its process died"):
            await models.check_ready()


async def test_a_model_whose_process_died_is_unavailable_and_the_next_check_asks_again() -> None:
    async with serving() as (server, models):
        await models.check_ready()
        server.dead = {"segmentation"}
        with pytest.raises(Unavailable, match="segmentation cannot be reached"):
            await models.segment(IMAGE)
        with pytest.raises(Unavailable, match="not ready: segmentation"):
            await models.check_ready()
        server.dead = set()
        await models.check_ready()


async def test_a_model_that_never_answers_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "CALL_SECONDS", 0.2)
    async with serving() as (server, models):
        server.silent = {"wav2lip"}
        with pytest.raises(Unavailable, match="not ready: wav2lip does not answer"):
            await models.check_ready()


async def test_concurrent_checks_share_their_calls_and_the_answer_of_a_model_is_remembered() -> None:
    async with serving() as (server, models):
        for _ in range(2):
            await asyncio.gather(*(models.check_ready() for _ in range(20)))
        calls = [call for call, _ in server.calls]
        assert (calls.count("server ready"), calls.count("wav2lip")) == (2, 1)
        server.up = False  # which is never remembered
        with pytest.raises(Unavailable, match="the server is starting"):
            await models.check_ready()


async def test_the_second_generator_is_checked_once_a_job_has_used_it() -> None:
    async with serving() as (server, models):
        server.dead = {"wav2lip_gan"}
        await models.check_ready()
        windows = np.zeros((1, 80, 16), np.float32)
        with pytest.raises(Unavailable):
            await models.wav2lip(FACE, windows, Generator.WAV2LIP_GAN)
        with pytest.raises(Unavailable, match="not ready: wav2lip_gan"):
            await models.check_ready()


async def test_a_server_that_is_starting_is_not_ready() -> None:
    async with serving() as (server, models):
        server.up = False
        with pytest.raises(Unavailable, match="not ready"):
            await models.check_ready()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections: its port is bound, but no socket listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_no_server_at_all_is_unavailable(nowhere: str) -> None:
    models = GrpcInferenceClient(nowhere)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await models.check_ready()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await models.model_info(Generator.WAV2LIP)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await models.segment(IMAGE)
    await models.close()


async def test_stand_ins_are_named_until_the_server_has_real_weights() -> None:
    async with serving() as (server, models):
        server.stand_ins = {"wav2lip"}
        assert (await models.model_info(Generator.WAV2LIP)).stand_ins == ("wav2lip",)
        server.stand_ins = set()
        assert (await models.model_info(Generator.WAV2LIP)).stand_ins == ()


async def test_the_sizes_of_calls_are_those_of_the_served_configuration() -> None:
    async with serving() as (server, models):
        info = await models.model_info(Generator.WAV2LIP)
        assert (info.generator_net, info.detector_net) == (ServedNet(32), ServedNet(4))  # the table's
        server.gpu_batches = {"wav2lip_gan": 256, "s3fd": 16}
        info = await models.model_info(Generator.WAV2LIP_GAN)
        assert (info.generator_net, info.detector_net) == (ServedNet(256, on_gpu=True), ServedNet(16, on_gpu=True))


async def test_a_closed_client_can_be_used_again() -> None:
    async with serving() as (_, models):
        await models.segment(IMAGE)
        await models.close()
        await models.segment(IMAGE)


async def test_a_call_can_be_cancelled_while_the_server_works() -> None:
    async with serving() as (server, models):
        server.hang = True
        task = asyncio.create_task(models.segment(IMAGE))
        await until(lambda: bool(server.requests))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_running_call_fails_when_the_client_is_closed_and_is_not_cancelled() -> None:
    async with serving() as (server, models):
        server.hang = True
        calls = [asyncio.create_task(call) for call in (models.segment(IMAGE), models.check_ready())]
        await until(lambda: bool(server.requests))
        await models.close()
        for call in calls:
            with pytest.raises(Unavailable, match="the connection was closed"):
                await call


async def test_a_live_triton_gives_the_results_of_the_library(triton: Triton) -> None:
    models, fake = GrpcInferenceClient(triton.grpc_address), FakeInference()
    random = np.random.RandomState(0)
    try:
        await models.check_ready()
        assert set((await models.model_info(Generator.WAV2LIP)).stand_ins) == {"s3fd", "wav2lip", "segmentation"}
        speech = (random.standard_normal(16_000) * 0.1).astype(np.float32)
        windows = await models.mel_windows(speech, 24000 / 1001)
        np.testing.assert_allclose(windows, await fake.mel_windows(speech, 24000 / 1001), atol=1e-4)
        frames = random.randint(0, 256, (3, 120, 160, 3)).astype(np.uint8)
        boxes, scores = await models.detect_faces(frames)
        assert (boxes.shape, scores.shape) == ((3, tensors.FACES, 4), (3, tensors.FACES))
        found = np.array([[10, 20, 90, 100], [0, 0, 33, 47], [61, 2, 160, 118]], np.int32)
        for generator, ensemble in ((Generator.WAV2LIP, "lipsync"), (Generator.WAV2LIP_GAN, "lipsync_gan")):
            mouths = await models.wav2lip(crop(frames, found), windows[:3], generator)
            with caller(triton.grpc_address) as call:
                same = call(ensemble, {"frames": frames, "boxes": found, "mel": windows[:3]})
            np.testing.assert_array_equal(mouths, same["mouths"])
        np.testing.assert_array_equal(await models.segment(frames[0]), await fake.segment(frames[0]))
        with pytest.raises(InvalidInput):
            await models.detect_faces(np.concatenate([frames, frames]))
    finally:
        await models.close()
