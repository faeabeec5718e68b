"""What docs/grpc.md tells callers to run runs, against a live server, and what they meet there is named in it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import soundfile
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from avatar import errors
from avatar.events import Rendered
from avatar.form.parse import TEXT_BYTES
from avatar.media import ffmpeg_args
from avatar.options import OPTIONS
from avatar.serving import live_model, render_model, runner
from avatar.settings import LiveSettings, described
from avatar_client import _cli
from embedded.server import Triton
from lipsync.mel_stream import LATENCY
from lipsync.tensors import (
    API_VERSION,
    API_VERSION_PARAMETER,
    LIVE_SAMPLES,
    MODELS,
    S3FD_BATCH,
    SEQUENCE_IDLE_SECONDS,
    WAV2LIP_BATCH,
)
from tests.support.gateway_process import Gateway
from tests.support.media import read_video
from tests.support.triton_streams import Answers, Talk, ask, request, stub

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "grpc.md").read_text("utf-8")
GRPC, HTTP = "127.0.0.1:8001", "127.0.0.1:16000"  # as `make up` has them
SECONDS, FRAMES = 0.6, 15
LIVE_FRAMES = FRAMES + 2  # the mouth closes


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


@pytest.fixture(scope="module")
def material(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples find: little to do."""
    made = tmp_path_factory.mktemp("material")
    cv2.imwrite(str(made / "face.jpg"), cv2.imread(str(samples / "face.png"))[::2, ::2])
    speech, rate = soundfile.read(samples / "speech.wav", start=16_000, frames=int(SECONDS * 16_000))
    soundfile.write(made / "speech.wav", speech, rate, subtype="PCM_16")
    return made


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of an example."""
    for file in material.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server(triton: Triton) -> Iterator[GRPCInferenceServiceStub]:
    with stub(triton.grpc_address) as connection:
        yield connection


# What each example says, and the files that it leaves: their names, and how many frames are in them all.
LEAVES = {
    "the quickstart": (f"{FRAMES} frames, {SECONDS} s", "out.mp4", FRAMES),
    "the version": (API_VERSION, "", 0),
    "a video in an event loop": (f"encode {FRAMES} {FRAMES}", "out.mp4", FRAMES),
    "what goes wrong": ("400 face_file: ", "", 0),
    "a live session": (f"LiveSummary(frames={LIVE_FRAMES}, duration={SECONDS}", "frame-*.jpg", LIVE_FRAMES),
    "the parts": ("", "spoken.png", 1),
    "avatar by tritonclient": (f"encode {FRAMES} {FRAMES}", "out.mp4", FRAMES),
    "live by tritonclient": (f"{LIVE_FRAMES - 1} (240, 320, 3)", "", 0),
    "lipsync by tritonclient": ("(8, 96, 96, 3)", "", 0),
}
EXAMPLES = dict(zip(LEAVES, blocks("python"), strict=True))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_python_example_runs_and_leaves_what_it_says(name: str, triton: Triton, folder: Path) -> None:
    assert GRPC in EXAMPLES[name]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(EXAMPLES[name].replace(GRPC, triton.grpc_address), {})  # noqa: S102 - our own page
    says, leaves, frames = LEAVES[name]
    assert says in output.getvalue()
    for promised in re.findall(r"^ *print\(.*\)  # (.+)$", EXAMPLES[name], re.M):
        assert promised == output.getvalue().strip()
    made = sorted(folder.glob(leaves)) if leaves else []
    assert sum(len(read_video(path)) for path in made) == frames
    assert not frames or read_video(made[0])[0].shape == (240, 320, 3)
    assert {path.name for path in folder.iterdir()} == {"face.jpg", "speech.wav", *(path.name for path in made)}


def shell(script: str, folder: Path, triton: Triton, gateway: Gateway | None = None) -> str:
    """What a script prints, run as a person would, with the stand-in for grpcurl."""
    tools = folder / "tools"
    tools.mkdir()
    stand_in = tools / "grpcurl"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("grpcurl.py")}" "$@"\n')
    stand_in.chmod(0o755)
    script = script.replace(GRPC, triton.grpc_address)
    if gateway:
        script = script.replace(f"http://{HTTP}", gateway.url)
    path = os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_avatar_commands_write_videos(folder: Path, triton: Triton, gateway: Gateway) -> None:
    (script,) = (block for block in blocks("sh") if block.startswith("avatar "))
    said = shell(script, folder, triton, gateway)
    outs = [re.search(r"-o (\S+)", line)[1] for line in script.splitlines()]  # type: ignore[index]
    assert len(outs) == 3
    for out in outs:
        assert f"{out}: {FRAMES} frames" in said
        assert len(read_video(folder / out)) == FRAMES
    green = read_video(folder / outs[1])[0, :20, :20].reshape(-1, 3).mean(0)
    assert green[1] > 200 > 60 > max(green[0], green[2])


@pytest.mark.skipif(not shutil.which("jq"), reason="the commands need jq")
def test_the_grpcurl_commands_get_version_and_video(folder: Path, triton: Triton) -> None:
    parts = [block for block in blocks("sh") if re.search(r"^triton ", block, re.M)]
    assert len(parts) == 2
    said = shell("".join(parts), folder, triton)
    *ready, config, summary = re.fullmatch(r"(\{.*?\})\n(\{.*?\})\n([\d.]+)\n(\{.*\})", said, re.S).groups()  # type: ignore[union-attr]
    assert [json.loads(each) for each in ready] == [{"ready": True}] * 2
    assert config == API_VERSION
    assert json.loads(summary)["frames"] == len(read_video(folder / "out.mp4")) == FRAMES


def test_the_files_of_the_protocol_are_those_that_the_commands_name() -> None:
    (download,) = (block for block in blocks("sh") if "curl --fail" in block)
    names = {pb.DESCRIPTOR.name, *(each.name for each in pb.DESCRIPTOR.dependencies)}
    assert {f"{name}.proto" for name in re.search(r"for name in (.*); do", download)[1].split()} == names  # type: ignore[index]
    for compiler in (block for block in blocks("sh") if "protoc -I" in block):
        assert set(re.findall(r"proto/(\w+\.proto)", compiler)) == names
    for mapped in re.findall(r",M(\w+\.proto)=", PAGE):
        assert mapped in names
    assert pb.DESCRIPTOR.package == "inference"
    assert not pb.DESCRIPTOR.GetOptions().go_package  # what the mapping is for


def test_the_go_and_java_examples_send_what_the_model_takes() -> None:
    (avatar,) = (model for model in MODELS if model.name == "avatar")
    known = {"UINT8", "BYTES", avatar.name, *(each.name for each in (*avatar.inputs, *avatar.outputs))}
    for example in (*blocks("go"), *blocks("java")):
        assert {'"face_file"', '"audio_file"', '"video"', '"summary"'} <= set(re.findall(r'"\w+"', example))
        assert set(re.findall(r'(?:add\w*\(request, |case |name: |Name\()"(\w+)"', example)) <= known


def commands(text: str) -> list[list[str]]:
    """Calls of `avatar` in a document, in blocks of either kind."""
    return [shlex.split(line)[1:] for line in re.findall(r"^ *(avatar render .*)$", text, re.M)]


@pytest.mark.parametrize("document", ["README.md", "client/README.md", "docs/grpc.md"])
def test_every_avatar_command_takes_its_flags(document: str) -> None:
    found = commands((ROOT / document).read_text("utf-8"))
    assert found
    for words in found:
        _cli._parser().parse_args(words)


def test_every_name_that_a_caller_meets_is_on_the_page() -> None:
    tensors = {each.name for model in MODELS for each in (*model.inputs, *model.outputs)}
    options = {option.name for option in OPTIONS}
    settings = {setting.variable for setting in described(LiveSettings)}
    told = set(render_model.summary(Rendered(None, "mp4", 1, Fraction(25), 1.0, {})))
    protocol = {"sequence_id", "sequence_start", "sequence_end", "triton_final_response", API_VERSION_PARAMETER}
    for name in (
        {model.name for model in MODELS} | tensors | options | settings | told | protocol | set(live_model.FORMATS)
    ):
        assert f"`{name}`" in PAGE or re.search(rf"`{name}: true`", PAGE), name


def test_links_to_sections_lead_to_sections() -> None:
    for document, section in re.findall(r"\]\(([^)#]*)#([^)]*)\)", PAGE):
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / document).read_text("utf-8") if document else PAGE, re.M)
        assert section in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, section


def test_every_status_is_explained() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AvatarError)]
    for status in {kind.status for kind in kinds} | {int(runner.GONE.split()[0])}:
        assert f"| {status} | `" in PAGE
    assert f"`400 {errors.FaceNotFound()}`" in PAGE


def test_numbers_are_those_of_the_code() -> None:
    fewest, most = LIVE_SAMPLES
    assert LATENCY == 0.2125
    said = (
        f"have a version, {API_VERSION} now",
        f"{LATENCY} s of sound",
        f"nothing is heard for {SEQUENCE_IDLE_SECONDS} s",
        f"| {TEXT_BYTES} bytes |",
        f"`detect_faces` | {S3FD_BATCH}, all of one size |",
        f"`lipsync_clip` | {WAV2LIP_BATCH};",
        f"20 ms ({fewest} samples) to 30 s ({most})",
    )
    for words in said:
        assert words in PAGE
    assert (ffmpeg_args.FRAGMENT, render_model.PROGRESS_SECONDS) == (500_000, 0.1)  # half a second, ten times a second
    assert (runner.WATCH_SECONDS, live_model.WATCH_SECONDS) == (0.2, 1.0)  # five times a second, once a second


def test_what_a_session_tells_is_explained(server: GRPCInferenceServiceStub, material: Path) -> None:
    talk = Talk(server, next(_sequences))
    talk.say(start=True, end=True, face_file=(material / "face.jpg").read_bytes(), audio=np.zeros(3200, np.float32))
    answers = talk.hear()
    talk.hang_up()
    assert answers.session and answers.summary
    for key in answers.session.keys() | answers.summary.keys():
        assert f"`{key}`" in PAGE, key
    assert answers.session["latency"] == LATENCY
    assert answers.summary["frames"] - 5 in (1, 2)


def test_a_session_belongs_to_its_id(server: GRPCInferenceServiceStub, material: Path) -> None:
    identity = next(_sequences)
    one, other = Talk(server, identity), Talk(server, identity)
    one.say(start=True, face_file=(material / "face.jpg").read_bytes(), audio=np.zeros(6400, np.float32))
    first = one.hear()
    other.say(pcm=np.zeros(640, np.int16))
    assert min(other.hear().frames) == max(first.frames) + 1
    other.say(end=True)
    assert other.hear().summary
    for talk in (one, other):
        talk.hang_up()


def test_the_first_video_answer_plays_alone_and_stages_are_named(
    server: GRPCInferenceServiceStub, material: Path, tmp_path: Path
) -> None:
    files = {"face_file": (material / "face.jpg").read_bytes(), "audio_file": (material / "speech.wav").read_bytes()}
    answers = ask(server, request("avatar", **files))
    (tmp_path / "first.mp4").write_bytes(answers.chunks[0])
    assert 0 < len(read_video(tmp_path / "first.mp4")) < FRAMES
    for stage in {stage for stage, _, _ in answers.progress} | {"queue"}:
        assert f"`{stage}`" in PAGE


def test_tritons_own_words_are_quoted_right(server: GRPCInferenceServiceStub, material: Path) -> None:
    version = server.ServerMetadata(pb.ServerMetadataRequest()).version
    assert f"({version} is 24.10;" in PAGE
    face = (material / "face.jpg").read_bytes()
    talk = Talk(server, next(_sequences))
    talk.say(audio=np.zeros(640, np.float32))
    refusals = [ask(server, request("avatar", face_file=face)).error, talk.hear().error]
    talk.hang_up()
    (paragraph,) = re.findall(r"^Triton's own refusals .*?\n\n", PAGE, re.S | re.M)
    quotes = re.findall(r"\(`([^`]*…[^`]*)`", paragraph)
    assert len(quotes) == len(refusals)
    for quote, refusal in zip(quotes, refusals, strict=True):
        assert quote.strip("… ") in refusal
        assert not re.match(r"\d{3} ", refusal)
    assert _code(server.ModelInfer, request("avatar", face_file=face, audio_file=face)) is grpc.StatusCode.UNIMPLEMENTED
    assert _code(server.ModelInfer, request("nobody", face_file=face)) is grpc.StatusCode.NOT_FOUND
    own = Answers()
    for answer in server.ModelStreamInfer(
        iter([request("avatar", face_file=face)]), metadata=(("triton_grpc_error", "true"),)
    ):
        own.add(answer)
    assert own.error == refusals[0]  # not a status of gRPC's


def _code(call: grpc.UnaryUnaryMultiCallable, asked: pb.ModelInferRequest) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call(asked, timeout=60)
    return refused.value.code()


_sequences = count(90_000)
