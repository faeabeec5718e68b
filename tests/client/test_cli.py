"""The command `avatar` over gRPC and over HTTP: its files, its output and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avatar_client import InvalidRequest, Unavailable, _cli, _http, _render_cli
from tests.client import fake_server as fake
from tests.client.conftest import SHORT_FACE as FACE
from tests.client.conftest import SPEECH
from tests.client.fake_gateway import VIDEO, FakeGateway
from tests.client.fake_server import FakeServer
from tests.client.test_render import script_of

CLIENT = Path(__file__).parents[2] / "client"


def argv(folder: Path, *arguments: str, out: str = "out.mp4") -> list[str]:
    return ["render", str(folder / "face.jpg"), str(folder / "speech.wav"), "-o", str(folder / "out" / out), *arguments]


def run(folder: Path, *arguments: str, **options: Any) -> int:
    return _cli.main(argv(folder, *arguments, **options))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return start_command(argv(folder, *arguments), text=True)


def start_command(arguments: list[str], *, stdout: int = subprocess.PIPE, text: bool = False) -> subprocess.Popen[Any]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
        # a proxy that refuses all connections
        **{"PYTHONPATH": str(CLIENT), "http_proxy": "http://127.0.0.1:9", "no_proxy": ""},
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "avatar_client._cli", *arguments],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=text,
    )


def to_stdout(folder: Path, out: str) -> list[str]:
    return ["render", str(folder / "face.jpg"), str(folder / "speech.wav"), "-o", out]


def written_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_the_video_is_written_and_its_path_is_printed(
    folder: Path, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *target) == 0
    assert (folder / "out" / "out.mp4").read_bytes() == FACE + SPEECH
    assert written_files(folder) == ["out.mp4"]
    output = capsys.readouterr()
    assert "out.mp4: " in output.out and "frames" in output.out
    assert "STAND-INS for s3fd" in output.err


def test_notes_are_printed_one_a_line(
    folder: Path, server: FakeServer, gateway: FakeGateway, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    notes = ["audio_file: 3.0 s of gaps in its clock were closed", "face_file: another note"]
    summary = json.dumps({**fake.SUMMARY, "notes": notes})
    server.avatar = script_of(
        fake.stream_response(video=b"video"), fake.stream_response(summary=summary), fake.final_response()
    )
    gateway.headers["X-Avatar-Notes"] = "; ".join(notes)
    assert run(folder, *target, "--no-progress") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "note" in line] == [f"avatar: note: {note}" for note in notes]


def test_the_command_runs_as_a_process_and_uses_no_proxy(folder: Path, target: list[str]) -> None:
    process = start(folder, *target)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "frames" in out
    assert (folder / "out" / "out.mp4").read_bytes() == FACE + SPEECH


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1"])
def test_the_video_is_written_to_the_standard_output_and_all_words_to_the_other(
    folder: Path, target: list[str], out: str
) -> None:
    video, words = start_command([*to_stdout(folder, out), *target]).communicate(timeout=60)
    assert video == FACE + SPEECH
    assert b"frames" in words
    assert written_files(folder) == []


def test_the_standard_output_may_be_a_file(folder: Path, target: list[str]) -> None:
    with (folder / "out" / "a.mp4").open("wb") as file:
        process = start_command([*to_stdout(folder, "-"), *target], stdout=file.fileno())
        _, words = process.communicate(timeout=60)
    assert process.returncode == 0, words
    assert (folder / "out" / "a.mp4").read_bytes() == FACE + SPEECH
    assert written_files(folder) == ["a.mp4"]


def test_a_named_pipe_is_written_and_stays_a_pipe(folder: Path, target: list[str]) -> None:
    os.mkfifo(pipe := folder / "out" / "pipe")
    process = start_command([*to_stdout(folder, str(pipe)), *target])
    video = pipe.read_bytes()
    words, _ = process.communicate(timeout=60)
    assert video == FACE + SPEECH
    assert b"pipe: " in words
    assert pipe.is_fifo()


def test_chunks_reach_a_pipe_as_they_arrive(folder: Path, server: FakeServer) -> None:
    go_on = threading.Event()

    def script(server: FakeServer, requests: Iterator[fake.Request], context: Any) -> Iterator[Any]:
        next(requests)
        yield fake.stream_response(video=b"first")
        go_on.wait(fake.SECONDS)
        yield fake.stream_response(video=b"second")
        yield fake.stream_response(summary=json.dumps(fake.SUMMARY))
        yield fake.final_response()

    server.avatar = script
    process = start_command([*to_stdout(folder, "-"), "--server", server.address])
    assert process.stdout
    assert os.read(process.stdout.fileno(), 100) == b"first"
    go_on.set()
    video, words = process.communicate(timeout=60)
    assert (video, process.returncode) == (b"second", 0), words


def test_a_reader_that_goes_away_ends_the_command_with_a_line(folder: Path, target: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start_command([*to_stdout(folder, "-"), "--no-progress", *target], stdout=write)
    os.close(write)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words.decode().splitlines() == ["avatar: [Errno 32] Broken pipe"]


SETTINGS = ("--background", "White", "--set", "pads=0,20,0,0", "--set", "face=left")


def test_options_are_sent_over_grpc(folder: Path, server: FakeServer) -> None:
    assert run(folder, *SETTINGS, "--set", f"background_file={folder / 'face.jpg'}", "--server", server.address) == 0
    (request,) = server.requests
    assert request.inputs.pop("background_file").tobytes() == FACE
    assert {name: value for name, value in request.inputs.items() if isinstance(value, str)} == {
        **{"avatarFileType": "jpg", "background": "White", "pads": "0,20,0,0", "face": "left"},
    }


def test_options_are_sent_over_http(folder: Path, gateway: FakeGateway) -> None:
    image = folder / 'b"a\nckdrop.png'
    image.write_bytes(b"background\r\n--")
    assert run(folder, *SETTINGS, "--set", f"background_file={image}", "--url", f"{gateway.url}/") == 0
    assert gateway.path == "/"
    assert gateway.texts == {"avatarFileType": "jpg", "background": "White", "pads": "0,20,0,0", "face": "left"}
    assert gateway.files == {
        "face_file": ("face.jpg", FACE),
        "audio_file": ("speech.wav", SPEECH),
        "background_file": ("b%22a%0Ackdrop.png", b"background\r\n--"),
    }


def test_the_form_has_the_required_fields_without_any_option(folder: Path, gateway: FakeGateway) -> None:
    (folder / "face.jpg").rename(folder / "face")
    _http.post(
        gateway.url,
        _render_cli.FORM_DEFAULTS,
        _http.form_of(folder / "face", folder / "speech.wav", None),
        folder / "out" / "out.mp4",
        30,
    )
    assert gateway.texts == {"avatarFileType": "png", "background": "From Input"}


def test_a_rejection_is_printed_as_one_line_and_leaves_no_file(
    folder: Path, server: FakeServer, gateway: FakeGateway, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = "face_file: not an image that can be read"
    server.avatar = script_of(
        fake.progress_response("queue", 0), fake.stream_response(video=b"half"), fake.error_response(f"400 {message}")
    )
    gateway.reject(400, message)
    assert run(folder, *target, "--no-progress") == 1
    assert capsys.readouterr() == ("", f"avatar: {message}\n")
    assert written_files(folder) == []


@pytest.mark.parametrize("flag", ["--server", "--url"])
def test_an_unreachable_server_is_reported_in_one_line(
    folder: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "127.0.0.1:1" if flag == "--server" else "http://127.0.0.1:1"
    assert run(folder, flag, address) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == f"avatar: {address} cannot be reached: connection refused; is it running? `avatar doctor` shows what answers"
    )
    assert written_files(folder) == []


def test_a_missing_file_is_reported_in_one_line(
    folder: Path, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "face.jpg").unlink()
    assert run(folder, *target, "--no-progress") == 1
    assert capsys.readouterr().err == f"avatar: {folder / 'face.jpg'}: No such file or directory\n"
    assert written_files(folder) == []


def test_a_missing_folder_is_reported_in_one_line(
    folder: Path, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *target, out="no/out.mp4") == 1
    assert capsys.readouterr().err == f"avatar: {folder}/out/no/out.mp4: No such file or directory\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ("--set", "pads"),
        ("--set", "bckground=White"),
        ("--url", "ftp://127.0.0.1"),
        ("--url", "127.0.0.1:port"),
        ("--server", "http://127.0.0.1:16000"),
        ("--server", "127.0.0.1:65536"),
        ("--server", "127.0.0.1:8001,"),
        ("--server", "127.0.0.1:8001", "--url", "http://127.0.0.1:16000"),
        ("--timeout", "0"),
        ("--timeout", "soon"),
        ("--what",),
    ],
)
def test_wrong_usage_exits_with_2(folder: Path, wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(folder, *wrong)
    assert end.value.code == 2
    assert ": error: " in capsys.readouterr().err


def test_a_name_of_another_container_results_in_a_warning(
    folder: Path, server: FakeServer, gateway: FakeGateway, target: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server.avatar = script_of(
        fake.stream_response(summary='{"frames": 1, "fps": "25", "duration": 1, "container": "webm"}')
    )
    gateway.headers["Content-Type"] = "video/webm"
    assert run(folder, *target) == 0
    assert "out.mp4 contains a WebM" in capsys.readouterr().err
    assert run(folder, *target, out="out.webm") == 0
    assert "contains a WebM" not in capsys.readouterr().err
    assert run(folder, *target, out="out.avi") == 0
    assert "out.avi contains a WebM in spite of its name" in capsys.readouterr().err
    assert written_files(folder) == ["out.avi", "out.mp4", "out.webm"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_call_and_leaves_no_file(folder: Path, server: FakeServer, number: signal.Signals) -> None:
    server.avatar = fake.waiting_avatar
    process = start(folder, "--server", server.address)
    assert server.started.wait(fake.SECONDS)
    assert process.stderr and process.stderr.readline() == "encode\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "", "avatar: cancelled\n")
    assert server.cancelled.wait(fake.SECONDS)
    assert written_files(folder) == []


def test_ctrl_c_closes_the_connection_to_the_gateway_and_leaves_no_file(folder: Path, gateway: FakeGateway) -> None:
    gateway.may_respond.clear()
    process = start(folder, "--url", gateway.url)
    assert gateway.received.wait(fake.SECONDS)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1]) == (130, "avatar: cancelled")
    assert gateway.disconnected.wait(fake.SECONDS)
    assert written_files(folder) == []


def test_a_server_that_stops_is_reported_in_one_line_without_logs_of_grpc(folder: Path, server: FakeServer) -> None:
    server.avatar = fake.waiting_avatar
    process = start(folder, "--server", server.address, "--no-progress")
    assert server.started.wait(fake.SECONDS)
    server._server.stop(None)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("avatar: ")
    assert written_files(folder) == []


def post(folder: Path, gateway: FakeGateway, timeout: float = 30) -> _http.PostResult:
    files = _http.form_of(folder / "face.jpg", folder / "speech.wav", None)
    return _http.post(gateway.url, {}, files, folder / "out" / "out.mp4", timeout)


def test_an_incomplete_response_is_not_saved(folder: Path, gateway: FakeGateway) -> None:
    gateway.cut = 100
    with pytest.raises(Unavailable, match=f"{len(VIDEO) - 100} of {len(VIDEO)}"):
        post(folder, gateway)
    assert written_files(folder) == []


def test_a_busy_gateway_suggests_a_delay_for_the_retry(folder: Path, gateway: FakeGateway) -> None:
    gateway.reject(503, "too many requests are waiting", **{"Retry-After": "17"})
    with pytest.raises(Unavailable, match="too many") as caught:
        post(folder, gateway)
    assert (caught.value.code, caught.value.retry_after) == (503, 17.0)


def test_a_form_that_is_rejected_before_it_is_read_raises_an_error(folder: Path, gateway: FakeGateway) -> None:
    gateway.reads_form = False
    gateway.reject(413, "face_file: too large")
    (folder / "face.jpg").write_bytes(bytes(40_000_000))
    # unread data may reset the connection before the client reads the response
    with pytest.raises((InvalidRequest, Unavailable)) as caught:
        post(folder, gateway)
    assert isinstance(caught.value, Unavailable) or caught.value.code == 413
    assert written_files(folder) == []


def test_the_response_of_another_server_is_an_error(folder: Path, gateway: FakeGateway) -> None:
    gateway.status, gateway.body, gateway.headers = 404, b"<html>\n nothing here", {"Content-Type": "text/html"}
    with pytest.raises(InvalidRequest, match="<html> nothing here") as caught:
        post(folder, gateway)
    assert caught.value.code == 404


def test_a_gateway_that_stops_responding_is_unavailable(folder: Path, gateway: FakeGateway) -> None:
    gateway.may_respond.clear()
    with pytest.raises(Unavailable, match="did not respond"):
        post(folder, gateway, timeout=1.0)
    assert gateway.disconnected.wait(fake.SECONDS)


def test_upload_and_download_report_their_progress(folder: Path, gateway: FakeGateway) -> None:
    steps: list[tuple[str, int, int | None]] = []
    files = _http.form_of(folder / "face.jpg", folder / "speech.wav", None)
    form = _http.MultipartForm({}, files)
    _http.post(gateway.url, {}, files, folder / "out" / "out.mp4", 30, lambda *step: steps.append(step))
    assert ("upload", form.length, form.length) in steps
    assert steps[-1] == ("download", len(VIDEO), len(VIDEO))
