"""Faults of the machine under the models `avatar` and `live`, on a live server: 503, and the next request succeeds."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedded.stubs import find_stubs
from tests.support.media import tone, write_wav
from tests.support.triton_server import Served
from tests.support.triton_streams import LiveConnection, Responses, make_request, send_request


@pytest.fixture(scope="module")
def files(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    speech = write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(0.3)).read_bytes()
    return {"face_file": (samples / "face.png").read_bytes(), "audio_file": speech}


def render(served: Served, files: dict[str, bytes]) -> Responses:
    return send_request(served.stub, make_request("avatar", "a-fault", **files))


def start_session(served: Served, files: dict[str, bytes], sequence: int) -> Responses:
    live = LiveConnection(served.stub, sequence)
    try:
        live.send(start=True, face_file=files["face_file"], pcm=np.zeros(160, np.int16))
        return live.receive()
    finally:
        live.close()


@contextmanager
def no_descriptors(served: Served, model: str) -> Iterator[None]:
    """Let the process of a model open no more files."""
    (pid,) = [stub.pid for stub in find_stubs(served.triton.pid) if stub.model == model]
    lowest_free = next(n for n in range(10_000) if not Path(f"/proc/{pid}/fd/{n}").exists())
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_job_without_descriptors_gets_503_and_the_next_one_a_video(served: Served, files: dict[str, bytes]) -> None:
    assert render(served, files).summary
    assert served.leftovers() == []
    with no_descriptors(served, "avatar"):
        assert render(served, files).error == (
            "503 the service has a fault: too many open files in the process; try again later"
        )
    assert "too many open files" in served.log.read_text(errors="replace")
    assert render(served, files).summary
    assert served.leftovers() == []


def test_a_session_without_descriptors_gets_503_and_the_next_one_starts(
    served: Served, files: dict[str, bytes]
) -> None:
    with no_descriptors(served, "live"):
        assert start_session(served, files, 7_101).error.startswith("503 the service has a fault: too many open files")
    assert start_session(served, files, 7_102).session


def test_a_removed_work_folder_costs_no_request(served: Served, files: dict[str, bytes]) -> None:
    for folder in served.work.iterdir():
        shutil.rmtree(folder, ignore_errors=True)
    assert render(served, files).summary
    assert start_session(served, files, 7_103).session
    assert served.leftovers() == []
