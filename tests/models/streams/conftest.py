"""Fixtures of the tests of streams: a small face, a recording, a new session id, and a check of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from tests.support.live_streams import sequences, stub_processes
from tests.support.media import tone, write_wav
from tests.support.triton_server import Served


@pytest.fixture(scope="module")
def face(samples: Path) -> bytes:
    """The face of the samples at half of its width and height."""
    image = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.4)).read_bytes()


@pytest.fixture
def sequence() -> int:
    return next(sequences)


@pytest.fixture(autouse=True)
def _server_stays_healthy(served: Served) -> Iterator[None]:
    """Assert after each test that the processes of all models still run, and that no ffmpeg and no file is left."""
    before = stub_processes(served)
    yield
    assert stub_processes(served) == before
    assert served.ffmpegs() == []
    assert served.leftovers() == []
