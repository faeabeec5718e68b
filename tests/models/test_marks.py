"""The mark of a video that the model `avatar` streams: in its first chunk, or, where it is required, a signature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import c2pa
import pytest

from embedded.server import Triton
from tests.conftest import job_env
from tests.support.certificates import make_authority
from tests.support.marks import COMMENT, SYNTHETIC, frames_and_sound, source_type, tags, xmp_packets
from tests.support.media import tone, write_wav
from tests.support.triton_server import Served
from tests.support.triton_streams import Responses, make_request, send_request, stub


@pytest.fixture(scope="module")
def files(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    speech = write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(1.2)).read_bytes()
    return {"face_file": (samples / "face.png").read_bytes(), "audio_file": speech}


@pytest.fixture(scope="module")
def signing(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that signs every video."""
    folder = tmp_path_factory.mktemp("signing")
    certificate, key = make_authority().issue(folder)
    marks = {"AVATAR_MARK": "c2pa", "AVATAR_C2PA_CERTIFICATE": str(certificate), "AVATAR_C2PA_KEY": str(key)}
    env = {**job_env(folder), **marks, "AVATAR_MARK_REQUIRED": "true"}
    with Triton(tiny_repository, log=folder / "triton.log", env=env) as server:
        yield server


def first_and_all(responses: Responses, path: Path) -> tuple[bytes, Path]:
    assert responses.error == ""
    path.write_bytes(responses.video)
    return responses.chunks[0], path


def test_a_streamed_video_is_marked_by_its_metadata(served: Served, files: dict[str, bytes], tmp_path: Path) -> None:
    responses = send_request(served.stub, make_request("avatar", "a-mark", **files))
    first, path = first_and_all(responses, tmp_path / "marked.mp4")
    assert source_type(xmp_packets(first)[0]) == SYNTHETIC
    assert f"\ncomment={COMMENT}" in tags(path)


@pytest.mark.slow
def test_a_streamed_video_is_signed_if_that_is_required(
    served: Served, signing: Triton, files: dict[str, bytes], tmp_path: Path
) -> None:
    with stub(signing.grpc_address) as connection:
        responses = send_request(connection, make_request("avatar", "a-signature", **files))
        rejected = send_request(connection, make_request("avatar", "a-webm", background="Transparent", **files))
    _, path = first_and_all(responses, tmp_path / "signed.mp4")
    with c2pa.Reader(path) as reader:
        assert json.loads(reader.json())["validation_state"] == "Valid"
    unsigned = send_request(served.stub, make_request("avatar", "a-mark", **files))
    assert frames_and_sound(path) == frames_and_sound(first_and_all(unsigned, tmp_path / "marked.mp4")[1])
    assert rejected.error.startswith("400 background: Transparent gives a WebM, which cannot hold the C2PA manifest")
