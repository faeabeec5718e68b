"""Media files for the end-to-end tests."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avatar.media.ffmpeg import executable


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`media("clip.mp4", *ffmpeg_arguments)`: a file that ffmpeg writes."""
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, *arguments: str) -> Path:
        path = folder / name
        subprocess.run([executable(), "-v", "error", "-y", "-nostdin", *arguments, str(path)], check=True)
        return path

    return make
