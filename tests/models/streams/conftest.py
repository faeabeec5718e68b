"""What the tests of streams share: a small face, a recording, an own session, and a server that stays healthy."""

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
    """The face of the samples, at a quarter of its pixels."""
    picture = cv2.imread(str(samples / "face.png"))[::2, ::2]
    return cv2.imencode(".png", picture)[1].tobytes()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.4)).read_bytes()


@pytest.fixture
def sequence() -> int:
    return next(sequences)


@pytest.fixture(autouse=True)
def _lives_on(served: Served) -> Iterator[None]:
    """Whatever was sent, the server and all of its models are there, and nothing lies about."""
    before = stub_processes(served)
    yield
    assert stub_processes(served) == before
    assert served.ffmpegs() == []
    assert served.leftovers() == []
