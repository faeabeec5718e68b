from collections.abc import Iterator
from pathlib import Path

import pytest

from avatar.media import ffmpeg
from avatar.media.self_test import SELF_TEST
from tests.support.fake_ffmpeg import FakeFfmpeg, write_fake_ffmpeg


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFfmpeg]:
    """A program in place of ffmpeg, which works until the test lets it fail."""
    fake = write_fake_ffmpeg(tmp_path / "bin")
    monkeypatch.setenv("PATH", fake.path)
    ffmpeg.executable.cache_clear()
    assert ffmpeg.executable() == str(fake.program)
    SELF_TEST.forget()
    yield fake
    ffmpeg.executable.cache_clear()
    SELF_TEST.forget()
