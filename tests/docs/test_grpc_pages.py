"""The gRPC pages name every model, tensor, option and error, and their numbers are those of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from avatar import errors
from avatar.events import RenderResult
from avatar.form.fields import OPTION_FIELDS
from avatar.form.parse import MAX_TEXT_BYTES
from avatar.media import ffmpeg_args
from avatar.serving import live_avatar, live_model, render_model, runner
from avatar.serving.request import CLIENT_CANCELLED
from avatar.settings import LiveSettings, described
from embedded.server import Triton
from lipsync import limits
from lipsync.mel_stream import LATENCY
from lipsync.mel_windows import MAX_FPS
from lipsync.tensors import (
    API_VERSION,
    API_VERSION_PARAMETER,
    LIVE_SAMPLES,
    MODELS,
    S3FD_BATCH,
    SEQUENCE_IDLE_SECONDS,
    WAV2LIP_BATCH,
)
from tests.docs.pages import PAGES, REFERENCE
from tests.support.media import read_video
from tests.support.triton_streams import LiveConnection, Responses, make_request, send_request, stub

OVERVIEW, RENDER, LIVE, SINGLE, ERRORS = (
    PAGES[f"docs/grpc/{name}.md"] for name in ("overview", "render", "live", "models", "errors-and-limits")
)
ALL = "\n".join([*(text for name, text in PAGES.items() if name.startswith("docs/grpc/")), *REFERENCE.values()])
FRAMES = 15


@pytest.fixture(scope="module")
def server(triton: Triton) -> Iterator[GRPCInferenceServiceStub]:
    with stub(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="module")
def files(material: Path) -> dict[str, bytes]:
    """The inputs of a request to `avatar`."""
    inputs = {"face_file": "face.jpg", "audio_file": "speech.wav"}
    return {name: (material / file).read_bytes() for name, file in inputs.items()}


def test_every_name_of_the_interface_is_on_the_pages() -> None:
    tensors = {each.name for model in MODELS for each in (*model.inputs, *model.outputs)}
    options = {option.name for option in OPTION_FIELDS}
    settings = {setting.variable for setting in described(LiveSettings)}
    keys = set(render_model.summary(RenderResult(None, "mp4", 1, Fraction(25), 1.0, {})))
    protocol = {"sequence_id", "sequence_start", "sequence_end", "triton_final_response", API_VERSION_PARAMETER}
    models = {model.name for model in MODELS}
    for name in models | tensors | options | settings | keys | protocol | set(live_avatar.FORMATS):
        assert f"`{name}`" in ALL or f"`{name}: true`" in ALL, name


def test_every_model_has_a_purpose_on_the_page_of_single_models() -> None:
    for model in MODELS:
        assert model.streams or f"`{model.name}`" in SINGLE, model.name


def test_every_status_is_explained() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AvatarError)]
    for status in {kind.status for kind in kinds} | {int(CLIENT_CANCELLED.split()[0])}:
        assert f"| {status} | `" in ERRORS
    assert f"`400 {errors.FaceNotFound()}`" in ERRORS


def _limits_of_single_models() -> list[str]:
    uhd, full_hd = (limits.MAX_ANSWER_BYTES // (width * height * 3) for width, height in ((3840, 2160), (1920, 1080)))
    answer = f"{limits.MAX_ANSWER_BYTES // limits.MIB} MiB"
    return [
        f"{answer} of images in the answer ({uhd} of 3840×2160, {full_hd} of 1920×1080)",
        f"| `face_crop` | 1 to {limits.MAX_CROPS} frames",
        f"| `face_nms` | 1 to {limits.MAX_NMS_IMAGES} images |",
        f"{limits.MAX_AUDIO_SECONDS} s of speech; {limits.MAX_WINDOWS} windows ({answer})",
        f"at most {MAX_FPS:g} frames per second",
        f"sides of {limits.MIN_DETECTION_SIDE} to {limits.MAX_SIDE} pixels",
        f"`{limits.DETECTION_MEGAPIXELS_VARIABLE}` megapixels ({limits.DETECTION_MEGAPIXELS})",
        f"at most {uhd} images of\n3840×2160",
    ]


def test_numbers_are_those_of_the_code() -> None:
    fewest, most = LIVE_SAMPLES
    assert LATENCY == 0.2125
    stated = {
        OVERVIEW: (f"have a version, {API_VERSION} now",),
        LIVE: (f"{LATENCY} s of sound", f"receives no request for {SEQUENCE_IDLE_SECONDS} s"),
        ERRORS: (
            f"| {MAX_TEXT_BYTES} bytes |",
            f"`s3fd` or `detect_faces` | {S3FD_BATCH}, all of one size |",
            f"`lipsync_clip` | {WAV2LIP_BATCH} |",
            *_limits_of_single_models(),
            f"20 ms ({fewest} samples) to 30 s ({most})",
        ),
    }
    for page, sentences in stated.items():
        for words in sentences:
            assert words in page
    # half a second, ten times per second
    assert (ffmpeg_args.FRAGMENT_MICROSECONDS, render_model.PROGRESS_SECONDS) == (500_000, 0.1)
    assert "half a second more of the video" in RENDER
    assert "at most ten times per second" in RENDER
    # five times per second, once a second
    assert (runner.CANCEL_POLL_SECONDS, live_model.CANCEL_POLL_SECONDS) == (0.2, 1.0)
    assert "five times per second for `avatar` and once a second for `live`" in ERRORS


def test_every_key_that_a_session_returns_is_explained(
    server: GRPCInferenceServiceStub, files: dict[str, bytes]
) -> None:
    connection = LiveConnection(server, next(_sequences))
    connection.send(start=True, end=True, face_file=files["face_file"], audio=np.zeros(3200, np.float32))
    responses = connection.receive()
    connection.close()
    assert responses.session
    assert responses.summary
    for key in responses.session.keys() | responses.summary.keys():
        assert f"`{key}`" in LIVE, key
    assert responses.session["latency"] == LATENCY
    assert responses.summary["frames"] - 5 in (1, 2)  # one or two frames after the end of the speech


def test_two_streams_with_one_id_share_a_session(server: GRPCInferenceServiceStub, files: dict[str, bytes]) -> None:
    identity = next(_sequences)
    one, other = LiveConnection(server, identity), LiveConnection(server, identity)
    one.send(start=True, face_file=files["face_file"], audio=np.zeros(6400, np.float32))
    first = one.receive()
    other.send(pcm=np.zeros(640, np.int16))
    assert min(other.receive().frames) == max(first.frames) + 1
    other.send(end=True)
    assert other.receive().summary
    for connection in (one, other):
        connection.close()


def test_the_first_video_response_plays_on_its_own_and_every_stage_is_named(
    server: GRPCInferenceServiceStub, files: dict[str, bytes], tmp_path: Path
) -> None:
    responses = send_request(server, make_request("avatar", **files))
    (tmp_path / "first.mp4").write_bytes(responses.chunks[0])
    assert 0 < len(read_video(tmp_path / "first.mp4")) < FRAMES
    for stage in {stage for stage, _, _ in responses.progress} | {"queue"}:
        assert f"`{stage}`" in RENDER


def test_the_messages_of_triton_are_quoted_correctly(server: GRPCInferenceServiceStub, files: dict[str, bytes]) -> None:
    version = server.ServerMetadata(pb.ServerMetadataRequest()).version
    assert f"({version} is 24.10;" in PAGES["docs/grpc/examples/grpcurl.md"]
    face = files["face_file"]
    connection = LiveConnection(server, next(_sequences))
    connection.send(audio=np.zeros(640, np.float32))
    rejections = [send_request(server, make_request("avatar", face_file=face)).error, connection.receive().error]
    connection.close()
    (paragraph,) = re.findall(r"^Triton rejects some requests .*?\n\n", ERRORS, re.S | re.M)
    quotes = re.findall(r"\(`([^`]*…[^`]*)`", paragraph)
    assert len(quotes) == len(rejections)
    for quote, rejection in zip(quotes, rejections, strict=True):
        assert quote.strip("… ") in rejection
        assert quote.strip("… ") in PAGES["docs/guide/troubleshooting.md"]
        assert not re.match(r"\d{3} ", rejection)
    assert (
        _code(server.ModelInfer, make_request("avatar", face_file=face, audio_file=face))
        is grpc.StatusCode.UNIMPLEMENTED
    )
    assert _code(server.ModelInfer, make_request("no_such_model", face_file=face)) is grpc.StatusCode.NOT_FOUND
    error = Responses()
    for response in server.ModelStreamInfer(
        iter([make_request("avatar", face_file=face)]), metadata=(("triton_grpc_error", "true"),)
    ):
        error.add(response)
    assert error.error == rejections[0]  # not a gRPC status


TEXT = b"\5\0\0\0White"
FILE = b"0123456789"


def _wrong(name: str = "background", datatype: str = "BYTES", shape: int = 1, raw: bytes | None = TEXT) -> bytes:
    """Return a request to `avatar` with one input that is wrong."""
    others = {each: FILE for each in ("face_file", "audio_file") if each != name}
    request = make_request("avatar", **others)
    request.inputs.add(name=name, datatype=datatype, shape=[shape])
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request.SerializeToString()


# in the order of the table of messages
MISTAKES = (
    _wrong(raw=b"White"),
    _wrong(raw=b"\2\0\0\0White"),
    _wrong(raw=b""),
    make_request("avatar", face_file=FILE).SerializeToString(),
    _wrong("colour"),
    _wrong("face_file"),
    _wrong(shape=5),
    _wrong("face_file", "UINT8", 20, FILE),
    _wrong(raw=None),
    make_request("avatars", face_file=FILE).SerializeToString(),
)


def test_the_table_of_messages_says_what_triton_says(server: GRPCInferenceServiceStub) -> None:
    (table,) = re.findall(r"^### Messages of Triton\n\n(.*?)\n\n", ERRORS, re.S | re.M)
    quotes = re.findall(r"^\| `([^`]+)`", table, re.M)
    of_requests = [quote for quote in quotes if "START flag" not in quote and "ModelInfer RPC" not in quote]
    for quote, mistake in zip(of_requests, MISTAKES, strict=True):
        message = send_request(server, pb.ModelInferRequest.FromString(mistake)).error
        assert quote.rstrip("… ") in message, message
    with pytest.raises(grpc.RpcError) as rejected:
        server.ModelInfer(make_request("avatar", face_file=FILE, audio_file=FILE), timeout=60)
    assert any(quote in rejected.value.details() for quote in quotes)
    swapped = send_request(server, pb.ModelInferRequest.FromString(_wrong(raw=b"\0\0\0\5White"))).error
    assert quotes[0].rstrip("… ") in swapped
    assert "1953065047" in send_request(server, pb.ModelInferRequest.FromString(MISTAKES[0])).error


def _code(call: grpc.UnaryUnaryMultiCallable, message: pb.ModelInferRequest) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as rejected:
        call(message, timeout=60)
    return rejected.value.code()


_sequences = count(90_000)
