"""`live` with a network of its own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import cv2
import pytest

from embedded.server import Triton
from export.triton_config import model_config
from lipsync import tensors
from tests.conftest import job_env
from tests.support import tiny_models
from tests.support.live_streams import FRAMES_OF_SESSION, SPEECH
from tests.support.triton_calls import Caller, caller
from tests.support.triton_streams import LiveConnection, stub

NETWORK = tensors.LIVE_NETWORKS[tensors.WAV2LIP.name]
SECONDS = 60.0


def add_network(repository: Path) -> None:
    network = tiny_models.write(repository, model_config.config(NETWORK))
    shutil.copy(repository / "wav2lip" / "1" / "model.onnx", network)


def speak(triton: Triton, face: bytes, sequence: int) -> int:
    """Run a session, and return its number of frames."""
    with stub(triton.grpc_address) as connection:
        session = LiveConnection(connection, sequence)
        session.send(start=True, face_file=face)
        session.send(audio=SPEECH, end=True)
        received = session.receive(2)
        assert received.error == ""
        session.close()
        return len(received.frames)


def wait_until_unloaded(call: Caller) -> None:
    end = time.monotonic() + SECONDS
    while call.client.is_model_ready(NETWORK.name):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_live_uses_the_network_of_its_own_and_without_it_that_of_all_callers(
    tiny_repository: Path, tmp_path: Path, samples: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_repository, repository, ignore=shutil.ignore_patterns("__pycache__"))
    add_network(repository)
    face = cv2.imencode(".png", cv2.imread(str(samples / "face.png"))[::2, ::2])[1].tobytes()
    with Triton(repository, poll=1, env=job_env(tmp_path)) as triton, caller(triton.grpc_address) as call:
        before = {name: call.windows(name) for name in ("wav2lip", NETWORK.name)}
        assert speak(triton, face, 1) == FRAMES_OF_SESSION
        assert call.windows("wav2lip") == before["wav2lip"]
        assert call.windows(NETWORK.name) == before[NETWORK.name] + FRAMES_OF_SESSION
        shutil.rmtree(repository / NETWORK.name)
        wait_until_unloaded(call)
        assert speak(triton, face, 2) == FRAMES_OF_SESSION
        assert call.windows("wav2lip") == before["wav2lip"] + FRAMES_OF_SESSION
