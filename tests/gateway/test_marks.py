"""The mark of a video over HTTP: signed, or a note, or a 503; and what the gateway says at start."""

import json
from functools import partial
from pathlib import Path

import c2pa
import httpx
import pytest

from avatar.media.c2pa_signing import Signer
from avatar.media.marking import FAILED, Marker
from avatar.pipeline import render
from avatar.settings import BadSetting
from avatar.testing import FakeInference
from gateway.settings import load
from tests.gateway.test_cli import FailedStart, gateway
from tests.support.certificates import make_authority
from tests.support.gateway_fakes import Serve
from tests.support.marks import SYNTHETIC, source_type, xmp_packets
from tests.support.media import tone, write_still, write_wav


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_authority().issue(tmp_path_factory.mktemp("signer"))


@pytest.fixture
def broken(files: tuple[Path, Path]) -> Signer:
    return Signer(files[0].read_bytes(), files[1].read_bytes(), "es384")


async def post(client: httpx.AsyncClient, folder: Path, background: str = "From Input") -> httpx.Response:
    face, speech = write_still(folder / "face.png"), write_wav(folder / "speech.wav", tone(0.4))
    return await client.post(
        "/",
        data={"avatarFileType": "png", "background": background},
        files={"face_file": face.read_bytes(), "audio_file": speech.read_bytes()},
    )


async def test_the_settings_sign_the_video_of_a_form(serve: Serve, files: tuple[Path, Path], tmp_path: Path) -> None:
    marked = {"mark": "c2pa", "c2pa_certificate": files[0], "c2pa_key": files[1]}
    async with serve(models=FakeInference(), job=None, **marked) as client:
        response = await post(client, tmp_path)
    assert response.status_code == 200
    assert "x-avatar-notes" not in response.headers
    assert "sign;dur=" in response.headers["server-timing"]
    (path := tmp_path / "result.mp4").write_bytes(response.content)
    with c2pa.Reader(path) as reader:
        assert json.loads(reader.json())["validation_state"] == "Valid"


async def test_by_default_a_video_is_marked_by_its_metadata(serve: Serve, tmp_path: Path) -> None:
    async with serve(models=FakeInference(), job=None) as client:
        response = await post(client, tmp_path)
    assert source_type(xmp_packets(response.content)[0]) == SYNTHETIC


async def test_a_signature_that_fails_is_a_note(serve: Serve, broken: Signer, tmp_path: Path) -> None:
    job = partial(render, marker=Marker("c2pa", broken))
    async with serve(models=FakeInference(), job=job) as client:
        response = await post(client, tmp_path)
    assert (response.status_code, response.headers["x-avatar-notes"]) == (200, FAILED)
    assert source_type(xmp_packets(response.content)[0]) == SYNTHETIC


async def test_a_signature_that_is_required_and_fails_is_a_503(serve: Serve, broken: Signer, tmp_path: Path) -> None:
    job = partial(render, marker=Marker("c2pa", broken, is_required=True))
    async with serve(models=FakeInference(), job=job) as client:
        response = await post(client, tmp_path)
    assert response.status_code == 503
    assert response.json() == {"detail": "the service has a fault: the video cannot be signed; try again later"}
    assert "retry-after" in response.headers


async def test_a_webm_that_would_have_to_be_signed_is_rejected(
    serve: Serve, files: tuple[Path, Path], tmp_path: Path
) -> None:
    marked = {"mark": "c2pa", "c2pa_certificate": files[0], "c2pa_key": files[1], "mark_required": True}
    async with serve(models=FakeInference(), job=None, **marked) as client:
        response = await post(client, tmp_path, "Transparent")
    assert response.status_code == 400
    assert response.json()["detail"].startswith("background: Transparent gives a WebM, which cannot hold")


def test_a_key_of_another_certificate_stops_the_start(
    failed_start: FailedStart, files: tuple[Path, Path], tmp_path: Path
) -> None:
    other = make_authority().issue(tmp_path / "other")
    keys = {"AVATAR_C2PA_CERTIFICATE": str(files[0]), "AVATAR_C2PA_KEY": str(other[1])}
    status, printed = failed_start(AVATAR_MARK="c2pa", **keys)
    assert status == 1
    assert printed.splitlines()[-1] == (
        "python -m gateway: cannot start: AVATAR_C2PA_KEY: the key does not belong to the first certificate of "
        "AVATAR_C2PA_CERTIFICATE; give its key, and put the certificate of the signer first"
    )


def test_a_gateway_with_a_good_certificate_starts(work: Path, files: tuple[Path, Path]) -> None:
    marked = {"AVATAR_C2PA_CERTIFICATE": str(files[0]), "AVATAR_C2PA_KEY": str(files[1])}
    with gateway(work, AVATAR_MARK="C2PA", AVATAR_MARK_REQUIRED="true", **marked) as running:
        assert httpx.get(f"{running.url}/ping", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AVATAR_MARK": "c2pa"}, "AVATAR_C2PA_CERTIFICATE: AVATAR_MARK=c2pa needs this file"),
        ({"AVATAR_MARK": "c2pa", "AVATAR_C2PA_CERTIFICATE": "c.pem"}, "AVATAR_C2PA_KEY: AVATAR_MARK=c2pa needs this"),
        ({"AVATAR_MARK": "none", "AVATAR_MARK_REQUIRED": "true"}, "AVATAR_MARK_REQUIRED: AVATAR_MARK=none marks no"),
        ({"AVATAR_MARK": "stamp"}, "AVATAR_MARK: expected metadata, c2pa or none"),
    ],
)
def test_marks_that_cannot_be_are_rejected(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match=sentence):
        load()
