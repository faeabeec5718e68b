"""The examples in the documents run against a live server, and print and write what the documents promise."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb

from embedded.access import TOKEN_VARIABLE
from embedded.server import Triton
from lipsync.tensors import API_VERSION, MODELS
from tests.docs.pages import COMMANDS, PAGES, ROOT, blocks
from tests.support.gateway_process import Gateway
from tests.support.media import read_video
from tests.support.sample_files import FRAMES, SECONDS

GRPC, HTTP = "127.0.0.1:8001", "127.0.0.1:16000"  # the defaults of `make up`
LIVE_FRAMES = FRAMES + 2  # two more frames in which the mouth closes
CLIENT, TRITON = "docs/guide/python-client.md", "docs/grpc/examples/python.md"
GRPCURL, GO, JAVA = (f"docs/grpc/examples/{name}.md" for name in ("grpcurl", "go", "java"))


@dataclass(frozen=True)
class Example:
    """A Python example: its output, the pattern of the files that it writes, and the number of frames in them."""

    page: str
    name: str
    prints: str = ""
    writes: str = ""
    frames: int = 0


# In the order of the pages. The examples of client/README.md run in tests/client, without a server.
EXAMPLES = (
    Example("docs/grpc/conversation.md", "a conversation", "LiveSummary(frames="),
    Example("docs/grpc/examples/python.md", "avatar", f"encode {FRAMES} {FRAMES}", "out.mp4", FRAMES),
    Example("docs/grpc/examples/python.md", "live", f"{LIVE_FRAMES - 1} (240, 320, 3)"),
    Example("docs/grpc/examples/python.md", "lipsync", "(8, 96, 96, 3)"),
    Example("docs/grpc/models.md", "a chain of calls", ", 240, 320, 3)"),
    Example("docs/grpc/overview.md", "the token", "log_verbose_level"),
    Example("docs/grpc/overview.md", "the version", API_VERSION),
    Example("docs/guide/python-client.md", "a video", f"{FRAMES} frames, {SECONDS} s", "out.mp4", FRAMES),
    Example("docs/guide/python-client.md", "progress", f"encode {FRAMES} {FRAMES}", "out.mp4", FRAMES),
    Example(
        "docs/guide/python-client.md",
        "a live session",
        f"LiveSummary(frames={LIVE_FRAMES}, duration={SECONDS}",
        "frame-*.jpg",
        LIVE_FRAMES,
    ),
    Example("docs/guide/python-client.md", "single models", "", "spoken.png", 1),
    Example("docs/guide/python-client.md", "errors", "400 face_file: "),
    Example("docs/guide/voice-agents.md", "a conversation", f"{FRAMES} frames with sound"),
)
ELSEWHERE = {"client/README.md", "docs/guide/livekit.md", "docs/guide/pipecat.md"}  # tests/client, tests/integrations
CODE = [(page, code) for page, text in PAGES.items() if page not in ELSEWHERE for code in blocks("python", text)]


def test_every_python_block_is_an_example() -> None:
    assert [page for page, _ in CODE] == [example.page for example in EXAMPLES]


@pytest.fixture
def folder(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of an example."""
    for file in material.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("example", "code"),
    [(example, code) for example, (_, code) in zip(EXAMPLES, CODE, strict=False)],
    ids=[f"{example.page}: {example.name}" for example in EXAMPLES],
)
def test_a_python_example_prints_and_writes_what_it_promises(
    example: Example, code: str, triton: Triton, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GRPC in code
    monkeypatch.setenv(TOKEN_VARIABLE, triton.token)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code.replace(GRPC, triton.grpc_address), {})  # noqa: S102 - our own pages
    assert example.prints in output.getvalue()
    for promised in re.findall(r"^ *print\(.*\)  # ([(\d].+\d\)?)$", code, re.M):
        assert promised == output.getvalue().strip()
    written = sorted(folder.glob(example.writes)) if example.writes else []
    assert sum(len(read_video(path)) for path in written) == example.frames
    assert not example.frames or read_video(written[0])[0].shape == (240, 320, 3)
    assert {path.name for path in folder.iterdir()} == {"face.jpg", "speech.wav", *(path.name for path in written)}


def shell(script: str, folder: Path, triton: Triton, gateway: Gateway | None = None) -> str:
    """Run a script in bash, with the substitute for grpcurl, and return its output."""
    tools = folder / "tools"
    tools.mkdir()
    substitute = tools / "grpcurl"
    substitute.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("grpcurl.py")}" "$@"\n')
    substitute.chmod(0o755)
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
    (script,) = (block for block in blocks("sh", PAGES[CLIENT]) if block.startswith("avatar "))
    printed = shell(script, folder, triton, gateway)
    outs = re.findall(r"-o (\S+)", script)
    assert len(outs) == script.count("avatar render") == 3
    for out in outs:
        assert f"{out}: {FRAMES} frames" in printed
        assert len(read_video(folder / out)) == FRAMES
    green = read_video(folder / outs[1])[0, :20, :20].reshape(-1, 3).mean(0)
    assert green[1] > 200 > 60 > max(green[0], green[2])


@pytest.mark.skipif(not shutil.which("jq"), reason="the commands need jq")
def test_the_grpcurl_commands_get_version_and_video(folder: Path, triton: Triton) -> None:
    parts = [block for block in blocks("sh", PAGES[GRPCURL]) if re.search(r"^triton ", block, re.M)]
    assert len(parts) == 2
    printed = shell("".join(parts), folder, triton)
    *ready, config, summary = re.fullmatch(r"(\{.*?\})\n(\{.*?\})\n([\d.]+)\n(\{.*\})", printed, re.S).groups()  # type: ignore[union-attr]
    assert [json.loads(each) for each in ready] == [{"ready": True}] * 2
    assert config == API_VERSION
    assert json.loads(summary)["frames"] == len(read_video(folder / "out.mp4")) == FRAMES


def test_the_commands_name_the_files_of_the_protocol() -> None:
    names = {pb.DESCRIPTOR.name, *(each.name for each in pb.DESCRIPTOR.dependencies)}
    assert {path.name for path in (ROOT / "client" / "proto").glob("*.proto")} == names
    assert all(f"`{name}`" in PAGES[GRPCURL] for name in names)
    assert "-import-path client/proto " in PAGES[GRPCURL]
    compilers = [block for page in (GO, JAVA) for block in blocks("sh", PAGES[page]) if "protoc -I" in block]
    assert len(compilers) == 2
    for compiler in compilers:
        assert set(re.findall(r"proto/(\w+\.proto)", compiler)) == names
    assert 'pb "example.com/avatar/inference"' in PAGES[GO]  # where the go_package of the files puts the client


def test_no_command_of_the_grpc_pages_asks_another_host() -> None:
    pages = [text for name, text in PAGES.items() if name.startswith("docs/grpc/")]
    assert not [block for text in pages for block in blocks("sh", text) if re.search(r"https?://", block)]


def test_the_page_of_node_has_the_function_of_the_example() -> None:
    (function,) = blocks("js", PAGES["docs/grpc/examples/node.md"])
    example = (ROOT / "examples" / "node-grpc" / "render.mjs").read_text("utf-8")
    assert "\n".join(line.removeprefix("    ") for line in function.strip().splitlines()) in example


@pytest.mark.parametrize(("page", "language"), [(GO, "go"), (JAVA, "java")])
def test_the_go_and_java_examples_send_the_inputs_of_the_model(page: str, language: str) -> None:
    (avatar,) = (model for model in MODELS if model.name == "avatar")
    known = {"UINT8", "BYTES", avatar.name, *(each.name for each in (*avatar.inputs, *avatar.outputs))}
    (example,) = blocks(language, PAGES[page])
    assert {'"face_file"', '"audio_file"', '"video"', '"summary"'} <= set(re.findall(r'"\w+"', example))
    assert set(re.findall(r'(?:add\w*\(request, |case |name: |Name\()"(\w+)"', example)) <= known


# of the form; tests/docs/test_jobs.py runs those of jobs
CURLS = [(page, words) for page, words in COMMANDS if words[0] == "curl" and "-F" in words and "/v1/" not in str(words)]


def test_the_curl_line_is_the_same_on_every_page() -> None:
    assert {page for page, _ in CURLS} == {"README.md", "docs/quickstart.md", "docs/guide/http.md"}
    assert len({tuple(words) for _, words in CURLS}) == 1


def test_the_curl_line_gets_a_video(gateway: Gateway) -> None:
    curl = CURLS[0][1]
    fields = [curl[i + 1].split("=", 1) for i, word in enumerate(curl) if word == "-F"]
    assert f"http://{HTTP}/" in curl
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context((ROOT / at[1:]).open("rb")) for name, at in fields if at.startswith("@")}
        texts = {name: value for name, value in fields if not value.startswith("@")}
        response = httpx.post(f"{gateway.url}/", files=files, data=texts, timeout=300)
    assert response.status_code == 200, response.text
    assert response.content[4:8] == b"ftyp"
