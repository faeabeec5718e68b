"""A gateway in front of the session's live Triton, and media made from the samples."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_process import Gateway, gateway_process

from avatar.ffmpeg import executable
from embedded.server import Triton


@pytest.fixture(scope="session")
def gateway(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), triton.grpc_address) as running:
        yield running


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`media("clip.mp4", *ffmpeg_arguments)`: a file made by ffmpeg."""
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, *arguments: str) -> Path:
        path = folder / name
        subprocess.run([executable(), "-v", "error", "-y", "-nostdin", *arguments, str(path)], check=True)
        return path

    return make
