"""`avatar` as a person meets it, over gRPC and over HTTP: what it leaves, what it says, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avatar_client import InvalidRequest, Unavailable, _cli, _http, _progress_bar
from tests.client import fake_server as fake
from tests.client.fake_gateway import VIDEO, FakeGateway
from tests.client.fake_server import FakeServer
from tests.client.test_render import breaks

CLIENT = Path(__file__).parents[2] / "client"
FACE, SPEECH = bytes(range(256)) * 20, b"RIFF" * 300


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as running:
        yield running


@pytest.fixture(params=["gRPC", "HTTP"])
def where(request: pytest.FixtureRequest, server: FakeServer, gateway: FakeGateway) -> list[str]:
    """Both ways to a server that does what is asked for."""
    gateway.body = FACE + SPEECH
    return ["--server", server.address] if request.param == "gRPC" else ["--url", gateway.url]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "face.jpg").write_bytes(FACE)
    (tmp_path / "speech.wav").write_bytes(SPEECH)
    (tmp_path / "out").mkdir()
    return tmp_path


def argv(folder: Path, *more: str, out: str = "out.mp4") -> list[str]:
    return ["render", str(folder / "face.jpg"), str(folder / "speech.wav"), "-o", str(folder / "out" / out), *more]


def run(folder: Path, *more: str, **how: Any) -> int:
    return _cli.main(argv(folder, *more, **how))


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        **{"PYTHONPATH": str(CLIENT), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""},  # no way to ourselves
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "avatar_client._cli", *argv(folder, *more)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_the_video_is_written_and_named(folder: Path, where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, *where) == 0
    assert (folder / "out" / "out.mp4").read_bytes() == FACE + SPEECH
    assert left(folder) == ["out.mp4"]
    told = capsys.readouterr()
    assert "out.mp4: " in told.out and "frames" in told.out
    assert "STAND-INS for s3fd" in told.err


def test_it_runs_as_a_process_and_asks_no_proxy(folder: Path, where: list[str]) -> None:
    process = start(folder, *where)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "frames" in out
    assert (folder / "out" / "out.mp4").read_bytes() == FACE + SPEECH


SETTINGS = ("--background", "White", "--set", "pads=0,20,0,0", "--set", "face=left")


def test_options_go_with_it_over_grpc(folder: Path, server: FakeServer) -> None:
    assert run(folder, *SETTINGS, "--set", f"background_file={folder / 'face.jpg'}", "--server", server.address) == 0
    (request,) = server.requests
    assert request.inputs.pop("background_file").tobytes() == FACE
    assert {name: value for name, value in request.inputs.items() if isinstance(value, str)} == {
        **{"avatarFileType": "jpg", "background": "White", "pads": "0,20,0,0", "face": "left"},
    }


def test_options_go_with_it_over_http(folder: Path, gateway: FakeGateway) -> None:
    odd = folder / 'b"a\nckdrop.png'
    odd.write_bytes(b"behind\r\n--")
    assert run(folder, *SETTINGS, "--set", f"background_file={odd}", "--url", f"{gateway.url}/") == 0
    assert gateway.path == "/"
    assert gateway.texts == {"avatarFileType": "jpg", "background": "White", "pads": "0,20,0,0", "face": "left"}
    assert gateway.files == {
        "face_file": ("face.jpg", FACE),
        "audio_file": ("speech.wav", SPEECH),
        "background_file": ("b%22a%0Ackdrop.png", b"behind\r\n--"),
    }


def test_the_form_has_what_the_gateway_needs_even_where_nothing_is_said(folder: Path, gateway: FakeGateway) -> None:
    (folder / "face.jpg").rename(folder / "face")
    _http.post(
        gateway.url,
        _cli.FORM_DEFAULTS,
        _http.form_of(folder / "face", folder / "speech.wav", None),
        folder / "out" / "out.mp4",
        30,
    )
    assert gateway.texts == {"avatarFileType": "png", "background": "From Input"}


def test_a_refusal_is_one_line_and_leaves_nothing(
    folder: Path, server: FakeServer, gateway: FakeGateway, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "face_file: not an image that can be read"
    server.avatar = breaks(fake.progress("queue", 0), fake.answer(video=b"half"), fake.problem(f"400 {sentence}"))
    gateway.refuse(400, sentence)
    assert run(folder, *where, "--no-progress") == 1
    assert capsys.readouterr() == ("", f"avatar: {sentence}\n")
    assert left(folder) == []


@pytest.mark.parametrize("way", ["--server", "--url"])
def test_a_server_that_is_not_there_is_one_line(folder: Path, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = "127.0.0.1:1" if way == "--server" else "http://127.0.0.1:1"
    assert run(folder, way, address) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"avatar: {address} cannot be reached")
    assert left(folder) == []


def test_a_file_that_is_not_there_is_one_line(
    folder: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "face.jpg").unlink()
    assert run(folder, *where, "--no-progress") == 1
    assert capsys.readouterr().err == f"avatar: {folder / 'face.jpg'}: No such file or directory\n"
    assert left(folder) == []


def test_a_folder_that_is_not_there_is_one_line(
    folder: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *where, out="no/out.mp4") == 1
    assert capsys.readouterr().err == f"avatar: {folder}/out/no/out.mp4: No such file or directory\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--set", "pads"),
        ("--set", "bckground=White"),
        ("--url", "127.0.0.1:16000"),
        ("--server", "http://127.0.0.1:16000"),
        ("--server", "127.0.0.1:8001", "--url", "http://127.0.0.1:16000"),
        ("--timeout", "0"),
        ("--timeout", "soon"),
        ("--what",),
    ],
)
def test_wrong_usage_ends_with_2(folder: Path, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(folder, *wrong)
    assert end.value.code == 2
    assert ": error: " in capsys.readouterr().err


def test_help_tells_the_options_and_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["--help"], ["render", "--help"]):
        with pytest.raises(SystemExit) as end:
            _cli.main(asked)
        assert end.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("0 done, 1 failed, 2 wrong usage, 130 after Ctrl-C") == 2
    assert "--background" in told and "resize_factor" in told and "127.0.0.1:8001" in told


def test_a_webm_is_not_called_an_mp4_without_a_word(
    folder: Path, server: FakeServer, gateway: FakeGateway, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.avatar = breaks(fake.answer(summary='{"frames": 1, "fps": "25", "duration": 1, "container": "webm"}'))
    gateway.headers["Content-Type"] = "video/webm"
    assert run(folder, *where) == 0
    assert "out.mp4 contains a WebM" in capsys.readouterr().err
    assert run(folder, *where, out="out.webm") == 0
    assert "contains a WebM" not in capsys.readouterr().err
    assert left(folder) == ["out.mp4", "out.webm"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_at_the_server_and_leaves_nothing(
    folder: Path, server: FakeServer, number: signal.Signals
) -> None:
    server.avatar = fake.waiting_avatar
    process = start(folder, "--server", server.address)
    assert server.begun.wait(fake.SECONDS)
    assert process.stderr and process.stderr.readline() == "encode\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", "avatar: cancelled\n")
    assert server.cancelled.wait(fake.SECONDS)
    assert left(folder) == []


def test_ctrl_c_hangs_up_on_the_gateway_and_leaves_nothing(folder: Path, gateway: FakeGateway) -> None:
    gateway.wait.clear()
    process = start(folder, "--url", gateway.url)
    assert gateway.begun.wait(fake.SECONDS)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, "avatar: cancelled")
    assert gateway.gone.wait(fake.SECONDS)
    assert left(folder) == []


def test_a_server_that_dies_is_one_line_without_grpcs_own(folder: Path, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    process = start(folder, "--server", server.address, "--no-progress")
    assert server.begun.wait(fake.SECONDS)
    server._server.stop(None)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("avatar: ")
    assert left(folder) == []


def post(folder: Path, gateway: FakeGateway, timeout: float = 30) -> _http.PostResult:
    files = _http.form_of(folder / "face.jpg", folder / "speech.wav", None)
    return _http.post(gateway.url, {}, files, folder / "out" / "out.mp4", timeout)


def test_an_answer_that_breaks_off_is_no_video(folder: Path, gateway: FakeGateway) -> None:
    gateway.cut = 100
    with pytest.raises(Unavailable, match=f"{len(VIDEO) - 100} of {len(VIDEO)}"):
        post(folder, gateway)
    assert left(folder) == []


def test_a_gateway_that_is_busy_says_when_to_come_back(folder: Path, gateway: FakeGateway) -> None:
    gateway.refuse(503, "too many requests are waiting", **{"Retry-After": "17"})
    with pytest.raises(Unavailable, match="too many") as caught:
        post(folder, gateway)
    assert (caught.value.code, caught.value.retry_after) == (503, 17.0)


def test_a_form_that_is_refused_before_it_is_read_tells_why(folder: Path, gateway: FakeGateway) -> None:
    gateway.reads = False
    gateway.refuse(413, "face_file: too large")
    (folder / "face.jpg").write_bytes(bytes(40_000_000))
    with pytest.raises((InvalidRequest, Unavailable)) as caught:  # what was not read may take the answer with it
        post(folder, gateway)
    assert isinstance(caught.value, Unavailable) or caught.value.code == 413
    assert left(folder) == []


def test_what_is_not_the_service_is_a_failure(folder: Path, gateway: FakeGateway) -> None:
    gateway.status, gateway.body, gateway.headers = 404, b"<html>\n nothing here", {"Content-Type": "text/html"}
    with pytest.raises(InvalidRequest, match="<html> nothing here") as caught:
        post(folder, gateway)
    assert caught.value.code == 404


def test_a_gateway_that_falls_silent_is_given_up(folder: Path, gateway: FakeGateway) -> None:
    gateway.wait.clear()
    with pytest.raises(Unavailable, match="did not respond"):
        post(folder, gateway, timeout=0.3)
    assert gateway.gone.wait(fake.SECONDS)


def test_upload_wait_and_download_are_told(folder: Path, gateway: FakeGateway) -> None:
    steps: list[tuple[str, int, int | None]] = []
    files = _http.form_of(folder / "face.jpg", folder / "speech.wav", None)
    form = _http.MultipartForm({}, files)
    _http.post(gateway.url, {}, files, folder / "out" / "out.mp4", 30, lambda *step: steps.append(step))
    assert ("upload", form.length, form.length) in steps
    assert steps[-1] == ("download", len(VIDEO), len(VIDEO))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line_that_is_drawn_again() -> None:
    out = Terminal()
    shown = _progress_bar.ProgressBar(out)
    shown.show("detect", 0, None)
    shown.show("encode", 0, 100)
    shown.show("detect", 50, None)
    shown.show("encode", 100, 100)
    shown.clear()
    drawn = out.getvalue().split("\r\x1b[K")
    assert "\n" not in out.getvalue()
    assert [line.split()[0] for line in drawn if line] == ["detect", "encode", "encode"]
    assert "#" * _progress_bar.CELLS in drawn[-2] and drawn[-1] == ""


def test_anything_else_gets_a_line_a_stage() -> None:
    out = io.StringIO()
    shown = _progress_bar.ProgressBar(out)
    for n in range(5):
        shown.show("detect", n, None)
        shown.show("encode", n, 5)
    shown.clear()
    assert out.getvalue() == "detect\nencode\n"


def test_a_bar_is_as_long_as_what_is_done() -> None:
    assert _progress_bar.line("encode", 50, 100, 4.2) == f"encode    [{'#' * 12}{'-' * 12}] 50/100  4 s"
    assert _progress_bar.line("queue", 0, None, 0) == "queue     0  0 s"
    assert _progress_bar.line("upload", 3_210_000, 4_000_000, 1).endswith("] 3.2M/4.0M  1 s")
    assert _progress_bar.line("odd", 7, 0, 1) == "odd       7  1 s"
