"""Calls from inside Triton, over a `pb_utils` of the test: deadlines, and what errors of Triton mean."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar.errors import AvatarError, ModelLost, ResourceFault, ShuttingDown, Unavailable
from avatar.inference import bls_client
from avatar.inference.bls_client import BlsInferenceClient
from avatar.inference.protocol import ServedNet
from avatar.options import Generator

IMAGE = np.zeros((4, 6, 3), np.uint8)
CPU_CONFIG = 'name: "wav2lip"\nmax_batch_size: 8\ninstance_group {\n  count: 1\n  kind: KIND_CPU\n}\n'
GPU_CONFIG = CPU_CONFIG.replace("8", "64").replace("CPU", "GPU")


class Triton:
    """The part of `triton_python_backend_utils` that a call needs; `error` fails it, `gate` holds it up."""

    TRITONSERVER_MEMORY_CPU = 0
    TritonModelException = RuntimeError

    def __init__(self) -> None:
        self.error = ""
        self.gate = threading.Event()
        self.gate.set()
        self.sent = 0
        self.rows: list[int] = []  # of each call
        self.called: list[str] = []  # the models
        self.missing: set[str] = set()  # models that are not served
        codes = ("INVALID_ARG", "UNAVAILABLE", "NOT_FOUND", "CANCELLED", "INTERNAL")
        self.TritonError = SimpleNamespace(**{code: code for code in codes})
        self.PreferredMemory = lambda memory, device: None
        self.Tensor = lambda name, array: array

    def InferenceRequest(self, **given: Any) -> Any:  # noqa: N802
        return SimpleNamespace(exec=lambda: self._execute(given["model_name"], given["inputs"]))

    def get_output_tensor_by_name(self, response: Any, name: str) -> Any:
        if name == "mouth":
            return SimpleNamespace(as_numpy=lambda: response.inputs[0])  # the face
        return SimpleNamespace(as_numpy=lambda: np.full((4, 6), 15, np.int32))

    def _execute(self, model: str, inputs: list[Any]) -> Any:
        self.sent += 1
        self.called.append(model)
        if model in self.missing:
            raise RuntimeError(f"Model {model} is not ready")
        self.rows.append(len(inputs[0]))
        assert self.gate.wait(60)
        error = SimpleNamespace(code=lambda: "INTERNAL", message=lambda: self.error)
        return SimpleNamespace(has_error=lambda: bool(self.error), error=lambda: error, inputs=inputs)


@pytest.fixture
def triton() -> Iterator[Triton]:
    triton = Triton()
    yield triton
    triton.gate.set()


def _client(triton: Triton, seconds: float = 60) -> BlsInferenceClient:
    client: BlsInferenceClient = BlsInferenceClient(triton, Path(), seconds)  # type: ignore[arg-type]
    return client


async def test_a_call_returns_the_outputs(triton: Triton) -> None:
    np.testing.assert_array_equal(await _client(triton).segment(IMAGE), np.full((4, 6), 15))


async def test_a_call_that_triton_does_not_answer_is_unavailable_in_time(triton: Triton) -> None:
    triton.gate.clear()
    with pytest.raises(Unavailable, match="segmentation did not answer in time"):
        await _client(triton, 0.1).segment(IMAGE)


async def test_calls_are_rejected_at_once_while_too_many_were_given_up(triton: Triton) -> None:
    client = _client(triton, 1.0)
    triton.gate.clear()
    calls = [client.segment(IMAGE) for _ in range(bls_client.MAX_LOST)]
    assert all(isinstance(error, Unavailable) for error in await asyncio.gather(*calls, return_exceptions=True))
    for check in (client.segment(IMAGE), client.check_ready()):
        with pytest.raises(Unavailable, match="the models do not answer"):
            await check
    assert triton.sent == bls_client.MAX_LOST
    triton.gate.set()
    async with asyncio.timeout(60):
        while True:
            try:
                await client.check_ready()
                break
            except Unavailable:
                await asyncio.sleep(0.01)
    np.testing.assert_array_equal(await client.segment(IMAGE), np.full((4, 6), 15))


async def test_a_call_that_waits_for_a_thread_is_not_sent_after_its_deadline(triton: Triton) -> None:
    client = _client(triton, 1.0)
    triton.gate.clear()
    calls = [client.segment(IMAGE) for _ in range(bls_client.THREADS + 5)]
    await asyncio.gather(*calls, return_exceptions=True)
    triton.gate.set()
    await asyncio.sleep(0.1)
    assert triton.sent == bls_client.THREADS


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ("Stub process 'wav2lip_0_0' is not healthy.", ModelLost, "wav2lip cannot be reached: its process died"),
        ("Failed to increase the shared memory pool size for key 'x'", ResourceFault, "memory of Triton is full"),
        ("Server not ready", ShuttingDown, "being stopped"),
        ("out of memory", AvatarError, "segmentation failed"),
    ],
)
async def test_errors_of_triton(triton: Triton, message: str, error: type[Exception], text: str) -> None:
    triton.error = message
    with pytest.raises(error, match=text) as raised:
        await _client(triton).segment(IMAGE)
    assert type(raised.value) is error


async def test_the_sizes_of_calls_are_those_of_the_served_configuration(triton: Triton, tmp_path: Path) -> None:
    for name, config in (("wav2lip", CPU_CONFIG), ("wav2lip_gan", GPU_CONFIG), ("s3fd", GPU_CONFIG)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(config)
    client = BlsInferenceClient(triton, tmp_path)  # type: ignore[arg-type]
    for generator, served in ((Generator.WAV2LIP, ServedNet(8)), (Generator.WAV2LIP_GAN, ServedNet(64, on_gpu=True))):
        info = await client.model_info(generator)
        assert (info.generator_net, info.detector_net) == (served, ServedNet(64, on_gpu=True))
        faces = np.arange(200, dtype=np.uint8)[:, None, None, None].repeat(96, 1).repeat(96, 2).repeat(3, 3)
        windows = np.zeros((200, 80, 16), np.float32)
        for _ in range(2):
            triton.rows.clear()
            np.testing.assert_array_equal(await client.wav2lip(faces, windows, generator), faces)
        assert sum(triton.rows) == 200
        assert max(triton.rows) <= served.max_batch
    assert max(triton.rows) > 8


async def test_without_a_configuration_the_sizes_are_those_of_the_table(triton: Triton, tmp_path: Path) -> None:
    info = await BlsInferenceClient(triton, tmp_path).model_info(Generator.WAV2LIP)  # type: ignore[arg-type]
    assert (info.generator_net, info.detector_net) == (ServedNet(32), ServedNet(4))


FACES, WINDOWS = np.zeros((3, 96, 96, 3), np.uint8), np.zeros((3, 80, 16), np.float32)


def _live_client(triton: Triton, repository: Path) -> BlsInferenceClient:
    for name in ("wav2lip", "wav2lip_gan", "wav2lip_live"):
        (repository / name).mkdir()
        (repository / name / "config.pbtxt").write_text(GPU_CONFIG)
    client: BlsInferenceClient = BlsInferenceClient(triton, repository, live=True)  # type: ignore[arg-type]
    return client


async def test_live_calls_the_network_of_its_own_where_there_is_one(triton: Triton, tmp_path: Path) -> None:
    client = _live_client(triton, tmp_path)
    await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)
    await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP_GAN)
    assert dict.fromkeys(triton.called) == dict.fromkeys(["wav2lip_live", "wav2lip_gan"])
    triton.called.clear()
    job: BlsInferenceClient = BlsInferenceClient(triton, tmp_path)  # type: ignore[arg-type]
    await job.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)
    assert {*triton.called} == {"wav2lip"}


async def test_live_falls_back_to_the_network_of_all_callers(triton: Triton, tmp_path: Path) -> None:
    client = _live_client(triton, tmp_path)
    triton.missing.add("wav2lip_live")
    for _ in range(2):
        np.testing.assert_array_equal(await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP), FACES)
    assert triton.called.count("wav2lip_live") == 1
    triton.missing.add("wav2lip")
    with pytest.raises(Unavailable, match="wav2lip cannot be reached"):
        await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)


async def test_an_error_of_the_network_for_live_is_no_reason_to_use_the_other(triton: Triton, tmp_path: Path) -> None:
    client = _live_client(triton, tmp_path)
    triton.error = "out of memory"
    with pytest.raises(AvatarError, match="wav2lip_live failed"):
        await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)
    assert {*triton.called} == {"wav2lip_live"}
