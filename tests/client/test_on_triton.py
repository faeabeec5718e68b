"""The single models on a live Triton give the results of the package `lipsync` and of direct calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from avatar_client import AvatarClient, InvalidRequest
from avatar_client._shared_memory import PREFIX
from avatar_client.region_file import FOLDER
from embedded.server import Triton
from lipsync import tensors
from lipsync.face_crop import crop, paste
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.triton_calls import Caller, caller

BOX = [80, 60, 240, 260]


@pytest.fixture(params=[True, False], ids=["memory", "gRPC"])
def client(request: pytest.FixtureRequest, triton: Triton) -> Iterator[AvatarClient]:
    with AvatarClient(triton.grpc_address, shared_memory=request.param, token=triton.token) as client:
        yield client
        used = regions(triton)
    assert bool(used) is request.param
    assert not regions(triton)
    assert not list(FOLDER.glob(f"{PREFIX}*"))


def regions(triton: Triton) -> set[str]:
    """Return the regions of this client that are registered at the server."""
    server = InferenceServerClient(triton.grpc_address)
    try:
        known = server.get_system_shared_memory_status(headers=triton.admin_headers).regions
        return {name for name in known if name.startswith(PREFIX)}
    finally:
        server.close()


@pytest.fixture(scope="module")
def call(triton: Triton) -> Iterator[Caller]:
    with caller(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module")
def frames(samples: Path) -> np.ndarray:
    """Return different frames, UINT8 [34,320,320,3] BGR."""
    image = cv2.resize(cv2.imread(str(samples / "portrait.png")), (320, 320))
    return np.stack([np.roll(image, n, axis=1) for n in range(34)])


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    return np.array([[80 + n, 60 + n % 3, 240 + n, 260 - n] for n in range(34)], np.int32)


WINDOWS = np.random.default_rng(0).uniform(-4, 4, (34, 80, 16)).astype(np.float32)


def test_faces_equal_those_of_direct_calls(client: AvatarClient, call: Caller, frames: np.ndarray) -> None:
    detected = client.detect_faces(frames[:5])
    parts = [call("detect_faces", {"frames": part}) for part in (frames[:4], frames[4:5])]
    for array, name in zip(detected, ("boxes", "scores"), strict=True):
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]))
    assert (detected[1][:, 0] > 0.5).all()


def test_windows_equal_those_of_the_package(client: AvatarClient) -> None:
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 50_000).astype(np.float32)
    for fps in (25.0, 30000 / 1001):
        np.testing.assert_array_equal(client.mel(audio, fps), mel_windows(mel_spectrogram(audio), fps))


@pytest.mark.parametrize(("frame_count", "box_count"), [(34, 34), (1, 1)])
def test_mouths_equal_those_of_whole_frames(
    client: AvatarClient, call: Caller, frames: np.ndarray, boxes: np.ndarray, frame_count: int, box_count: int
) -> None:
    mouths = client.lipsync(frames[:frame_count], boxes[:box_count], WINDOWS)
    faces = crop(frames[:frame_count], boxes[:box_count], len(WINDOWS))
    direct = [
        call("wav2lip", {"face": faces[part], "mel": WINDOWS[part]})["mouth"] for part in (slice(32), slice(32, 34))
    ]
    np.testing.assert_array_equal(mouths, np.concatenate(direct))


def test_the_gan_generator_uses_the_gan_network(client: AvatarClient, call: Caller, frames: np.ndarray) -> None:
    box = np.array([BOX], np.int32)
    mouths = client.lipsync(frames[:1], box, WINDOWS[:8], model="wav2lip_gan")
    faces = crop(frames[:1], box, 8)
    np.testing.assert_array_equal(mouths, call("wav2lip_gan", {"face": faces, "mel": WINDOWS[:8]})["mouth"])


@pytest.mark.parametrize(("frame_count", "box_count"), [(34, 34), (1, 34), (1, 1), (34, 1)])
def test_pasted_frames_equal_those_of_the_package(
    client: AvatarClient, frames: np.ndarray, boxes: np.ndarray, frame_count: int, box_count: int
) -> None:
    mouths = np.random.default_rng(2).integers(0, 256, (34, 96, 96, 3), np.uint8)
    expected = paste(frames[:frame_count], boxes[:box_count], mouths)
    np.testing.assert_array_equal(client.paste(frames[:frame_count], boxes[:box_count], mouths), expected)


def test_a_rejection_of_the_server_has_its_message(triton: Triton) -> None:
    with AvatarClient(triton.grpc_address) as client:
        with pytest.raises(InvalidRequest, match="fps") as caught:
            client.mel(np.zeros(50_000, np.float32), fps=-1)
        assert caught.value.code == 400
        assert client.is_ready("lipsync", "detect_faces")
        assert not client.is_ready("no such model")
        assert client.api_version() == tensors.API_VERSION
