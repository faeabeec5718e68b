"""Live sessions over the gateway with the real model `live`, and tiny networks."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from avatar.inference.grpc_client import GrpcInferenceClient
from embedded.server import Triton
from tests.gateway.conftest import Live
from tests.gateway.live.test_webrtc import visiting
from tests.support.gateway_fakes import eventually
from tests.support.gateway_process import Gateway
from tests.support.live_callers import SECONDS, calling

ROOT = Path(__file__).parents[3]
RATE = 48_000


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    image = cv2.imread(str(samples / "face.png"))
    return cv2.imencode(".jpg", image[::2, ::2])[1].tobytes()


@pytest.fixture(scope="module")
def speech(samples: Path) -> np.ndarray:
    """One second at 48 kHz."""
    sound, rate = soundfile.read(samples / "speech.wav", dtype="int16", start=16_000, frames=16_000)
    return np.repeat(sound, RATE // rate)


def is_jpeg(data: bytes) -> bool:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


async def test_a_conversation_rests_speaks_is_interrupted_and_ends(
    gateway: Gateway, face: bytes, speech: np.ndarray
) -> None:
    async with calling(gateway.url) as caller:
        session = await caller.start(face, sample_rate=RATE, echo=True)
        assert session["sample_rate"] == RATE
        assert session["avatar"]
        resting = await caller.picture()
        assert (resting.index, resting.sound_time) == (0, -1.0)
        assert is_jpeg(resting.jpeg)
        assert resting.sound.shape == (RATE // 25,)
        assert not resting.sound.any()
        await caller.speak(speech)
        await caller.send("segment_end")
        segment = await caller.mark("segment")
        said = [each for each in caller.pictures if each.sound_time >= 0]
        assert len(said) >= 25
        sound = np.concatenate([each.sound for each in said])[: len(speech)]
        start = next(n for n in range(len(said)) if said[n].sound.any())
        assert start <= 1
        np.testing.assert_array_equal(sound, speech[: len(sound)])
        assert segment["last"] >= said[-1].index
        assert (await caller.picture()).sound_time == -1

        await caller.speak(np.tile(speech, 5))
        while (await caller.picture()).sound_time < 0:
            pass
        shown = caller.pictures[-1].index
        await caller.send("clear", shown=shown)
        cleared = await caller.mark("cleared")
        following = [await caller.picture() for _ in range(5)]
        assert [each.index for each in following] == list(range(cleared["next"], cleared["next"] + 5))
        assert all(each.sound_time == -1 for each in following)
        await caller.speak(speech[:100])  # less than the model takes in other requests
        await caller.send("segment_end")
        assert (await caller.mark("segment"))["segment"] > segment["segment"]
        await caller.send("end")
        summary = await caller.mark("summary")
        assert (await caller.close_code())[0] == 1000
    assert summary["frames"] == caller.pictures[-1].index + 1
    assert summary["without_face"] == 0


async def test_the_avatar_of_a_session_starts_the_next_one(gateway: Gateway, face: bytes) -> None:
    async with calling(gateway.url) as caller:
        first = await caller.start(face, options={"max_height": 120})
    async with calling(gateway.url) as caller:
        second = await caller.start(avatar=first["avatar"])
        assert (second["width"], second["height"]) == (first["width"], first["height"])
        assert (await caller.picture()).index == 0


async def test_a_file_without_a_face_is_rejected_with_its_code(gateway: Gateway) -> None:
    grey = cv2.imencode(".png", np.full((96, 96, 3), 127, np.uint8))[1].tobytes()
    async with calling(gateway.url) as caller:
        error = await caller.start(grey)
        assert error["code"] == "face_not_found"
        assert (await caller.close_code())[0] == 1008
    async with calling(gateway.url) as caller:
        error = await caller.start(b"no image at all")
        assert (error["code"], error["field"]) == ("invalid_field", "face_file")


async def test_a_session_without_rest_lives_through_a_pause(gateway: Gateway, face: bytes, speech: np.ndarray) -> None:
    async with calling(gateway.url) as caller:
        await caller.start(face, sample_rate=RATE, rest=False)
        await asyncio.sleep(2.2)  # longer than the gateway takes to acknowledge frames, which keeps the session
        await caller.speak(speech)
        assert (await caller.picture()).index == 0
        await caller.send("end")
        assert (await caller.mark("summary"))["frames"] > 25


async def test_a_visitor_over_webrtc_sees_and_hears_the_real_model(
    triton: Triton, live: Callable[..., Awaitable[Live]], face: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])
    models = GrpcInferenceClient(triton.grpc_address, SECONDS, shared_memory=False)
    gateway = await live(models=models)
    async with calling(gateway.url) as caller:
        session = await caller.start(face)
    async with visiting(gateway) as visitor:
        answer = await visitor.call({"avatar": session["avatar"]})
        assert answer.status_code == 201, answer.text
        await eventually(lambda: len(visitor.light) > 5)
        visitor.microphone.is_loud = True
        await eventually(lambda: bool(visitor.sound) and visitor.sound[-1] > 1000)
        visitor.microphone.is_loud = False
        await eventually(lambda: "segment" in visitor.types())
    await eventually(lambda: not gateway.service.live.running)
    await models.close()


def test_the_example_of_the_guide_writes_the_frames(
    gateway: Gateway, samples: Path, face: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs/guide/live-socket.md").read_text()
    (code,) = re.findall(r"```python3\n(.*?)```", guide, re.S)
    (tmp_path / "face.png").write_bytes(face)
    shutil.copy(samples / "speech.wav", tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("ws://127.0.0.1:16000", gateway.url.replace("http", "ws")), {})  # noqa: S102 - our own page
    frames = sorted(tmp_path.glob("frame*.jpg"))
    assert len(frames) > 25
    assert all(is_jpeg(each.read_bytes()) for each in frames)
