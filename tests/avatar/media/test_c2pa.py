"""Videos signed with C2PA: they validate, show the same, and fail as the settings say."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

import lipsync
from avatar.errors import InvalidField, MarkFault
from avatar.media.c2pa_signing import CannotSign, Signer, SigningFailed
from avatar.media.marking import FAILED, METADATA, NOT_MP4, STREAMED, Marker
from avatar.media.start import prepare
from avatar.request import AvatarRequest, Background
from avatar.settings import JobSettings
from tests.support.certificates import Authority, Key, make_authority
from tests.support.marks import COMMENT, SYNTHETIC, boxes, frames_and_sound, packets, rendered, source_type, xmp_packets
from tests.support.media import names, request, tone, write_still, write_wav


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture(scope="module")
def files(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return authority.issue(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def signer(files: tuple[Path, Path]) -> Signer:
    return Signer.load(*files)


@pytest.fixture(scope="module")
def broken(files: tuple[Path, Path]) -> Signer:
    """A signer whose key was lost after the start: it is one of another algorithm."""
    return Signer(files[0].read_bytes(), files[1].read_bytes(), "es384")


@pytest.fixture
def job(tmp_path: Path) -> AvatarRequest:
    (folder := tmp_path / "job").mkdir()
    speech = write_wav(folder / "speech.wav", tone(1.3))
    return request(folder, write_still(folder / "face.png"), speech, still=True)


def checked(path: Path, trusted: str = "") -> tuple[str, dict[str, Any]]:
    """Return C2PA's verdict on a file, and its manifest."""
    settings = {"trust": {"trust_anchors": trusted}, "verify": {"verify_trust": True}} if trusted else {}
    with c2pa.Context.from_dict(settings) as context, c2pa.Reader(path, context=context) as reader:
        report = json.loads(reader.json())
    return report["validation_state"], report["manifests"][report["active_manifest"]]


async def saved(job: AvatarRequest, marker: Marker, name: str) -> Path:
    path = job.folder.parent / f"{name}.mp4"
    path.write_bytes(b"".join((await rendered(job, marker))[0]))
    return path


async def test_a_signed_video_validates_and_says_how_it_was_made(
    job: AvatarRequest, signer: Signer, authority: Authority
) -> None:
    path = await saved(job, Marker("c2pa", signer), "signed")
    state, manifest = checked(path)
    assert state == "Valid"
    assert checked(path, authority.pem)[0] == "Trusted"
    generator = manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("talking-avatar", lipsync.__version__)
    (actions,) = [each["data"]["actions"] for each in manifest["assertions"] if "actions" in each["label"]]
    assert actions == [{"action": "c2pa.created", "digitalSourceType": SYNTHETIC}]


async def test_a_signature_keeps_the_metadata_and_every_frame(job: AvatarRequest, signer: Signer) -> None:
    signed, unsigned = await saved(job, Marker("c2pa", signer), "signed"), await saved(job, METADATA, "unsigned")
    assert packets(signed) == packets(unsigned)
    assert frames_and_sound(signed) == frames_and_sound(unsigned)
    (packet,) = xmp_packets(signed.read_bytes())
    assert source_type(packet) == SYNTHETIC
    assert COMMENT.encode() in signed.read_bytes()
    kinds = [kind for kind, _, _ in boxes(signed.read_bytes())]
    assert kinds.index(b"moov") < kinds.index(b"mdat")


async def test_a_changed_frame_does_not_validate(job: AvatarRequest, signer: Signer) -> None:
    path = await saved(job, Marker("c2pa", signer), "signed")
    data = bytearray(path.read_bytes())
    (start,) = [start for kind, start, _ in boxes(bytes(data)) if kind == b"mdat"]
    data[start + 1000] ^= 1
    path.write_bytes(data)
    assert checked(path)[0] == "Invalid"


async def test_a_streamed_video_is_not_signed_and_says_so(job: AvatarRequest, signer: Signer) -> None:
    chunks, result = await rendered(replace(job, streamed=True), Marker("c2pa", signer))
    assert result.notes == (STREAMED,)
    assert len(chunks) > 2
    assert source_type(xmp_packets(chunks[0])[0]) == SYNTHETIC
    assert b"c2pa" not in b"".join(chunks)


async def test_a_streamed_video_is_kept_and_signed_if_the_mark_is_required(job: AvatarRequest, signer: Signer) -> None:
    asked = replace(job, streamed=True)
    chunks, result = await rendered(asked, Marker("c2pa", signer, is_required=True))
    (path := job.folder / "signed.mp4").write_bytes(b"".join(chunks))
    assert (result.path, result.notes) == (None, ())
    assert checked(path)[0] == "Valid"
    assert [kind for kind, _, _ in boxes(chunks[0])] == [b"ftyp", b"uuid", b"moov", b"uuid", b"moof", b"mdat"]
    assert len(chunks) > 2
    unsigned = await saved(asked, METADATA, "unsigned")
    assert packets(path) == packets(unsigned)
    assert frames_and_sound(path) == frames_and_sound(unsigned)


async def test_a_webm_is_not_signed_and_says_so(job: AvatarRequest, signer: Signer) -> None:
    asked = replace(job, background=Background.TRANSPARENT)
    _, result = await rendered(asked, Marker("c2pa", signer))
    assert result.notes == (NOT_MP4,)


async def test_a_webm_is_rejected_if_the_mark_is_required(job: AvatarRequest, signer: Signer) -> None:
    asked = replace(job, background=Background.TRANSPARENT)
    with pytest.raises(InvalidField, match="background: Transparent gives a WebM") as raised:
        await rendered(asked, Marker("c2pa", signer, is_required=True))
    assert raised.value.status == 400


async def test_a_video_that_cannot_be_signed_is_sent_with_its_metadata_and_a_note(
    job: AvatarRequest, broken: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        chunks, result = await rendered(job, Marker("c2pa", broken))
    assert result.notes == (FAILED,)
    assert "a video could not be signed: Signature" in caplog.text
    assert chunks == (await rendered(job, METADATA))[0]
    assert names(job.folder) == {"face.png", "speech.wav", "avatar.mp4"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_no_video_leaves_unsigned_if_the_mark_is_required(
    job: AvatarRequest, broken: Signer, streamed: bool
) -> None:
    with pytest.raises(MarkFault) as raised:
        await rendered(replace(job, streamed=streamed), Marker("c2pa", broken, is_required=True))
    assert raised.value.status == 503
    assert str(raised.value) == "the service has a fault: the video cannot be signed; try again later"
    assert names(job.folder) == {"face.png", "speech.wav"}


async def test_a_file_that_cannot_be_signed_is_unchanged(broken: Signer, tmp_path: Path) -> None:
    (path := tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(SigningFailed):
        await broken.sign(path)
    assert path.read_bytes() == b"no video"
    assert names(tmp_path) == {"no.mp4"}


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ec.generate_private_key(ec.SECP521R1()), "es512"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519", "RSA"],
)
def test_the_key_decides_the_algorithm(authority: Authority, tmp_path: Path, key: Key, algorithm: str) -> None:
    signer = Signer.load(*authority.issue(tmp_path, key))
    signer.try_out()
    assert signer.algorithm == algorithm


def test_a_key_in_the_older_form_of_openssl_is_read(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue(tmp_path, key_format=PrivateFormat.TraditionalOpenSSL)
    assert files[1].read_text().startswith("-----BEGIN EC PRIVATE KEY-----")
    Signer.load(*files).try_out()


def settings(certificate: Path, key: Path) -> JobSettings:
    return JobSettings(mark="c2pa", c2pa_certificate=certificate, c2pa_key=key, encoder="x264", decoder="cpu")


async def test_a_process_starts_with_a_certificate_that_signs(files: tuple[Path, Path]) -> None:
    assert await prepare(settings(*files)) == ""
    Marker.of(settings(*files)).try_out()


async def test_a_process_does_not_start_with_files_that_do_not_sign(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue(tmp_path / "good"), authority.issue(tmp_path / "other")
    (rubbish := tmp_path / "rubbish.pem").write_text("rubbish")
    locked, curve = tmp_path / "locked.pem", tmp_path / "curve"
    secret = ec.generate_private_key(ec.SECP256R1())
    password = BestAvailableEncryption(b"a password")
    locked.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, password))
    cases = [
        (tmp_path / "none.pem", good[1], "AVATAR_C2PA_CERTIFICATE: .*none.pem: No such file or directory"),
        (rubbish, good[1], "AVATAR_C2PA_CERTIFICATE: the file holds no PEM certificate"),
        (good[0], tmp_path, "AVATAR_C2PA_KEY: .*Is a directory"),
        (good[0], rubbish, "AVATAR_C2PA_KEY: the file holds no PEM private key"),
        (good[0], locked, "AVATAR_C2PA_KEY: the key has a password"),
        (good[0], other[1], "AVATAR_C2PA_KEY: the key does not belong to the first certificate"),
        (*authority.issue(curve, ec.generate_private_key(ec.SECP256K1())), "does not sign with this kind of key"),
        (*authority.issue(tmp_path / "old", days=(-2, -1)), r"valid from [-\d]+ to [-\d]+ only; renew it"),
        (*authority.issue(tmp_path / "web", usage=ExtendedKeyUsageOID.SERVER_AUTH), "C2PA does not accept the certif"),
    ]
    for certificate, key, sentence in cases:
        with pytest.raises(CannotSign, match=sentence):
            Marker.of(settings(certificate, key)).try_out()
    assert (await prepare(settings(*cases[5][:2]))).startswith("cannot start: AVATAR_C2PA_KEY: the key does not")


def test_the_package_is_loaded_only_where_it_is_configured() -> None:
    code = "import sys, avatar.pipeline, avatar.media.start; print({'c2pa'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_a_machine_without_the_package_says_what_to_install(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(CannotSign, match="needs the package c2pa-python"):
        Signer.load(*files)
