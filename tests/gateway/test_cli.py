"""`python -m gateway` as a process: its output, its exit status, and the files that it leaves."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.__main__ import main
from gateway.app import create_app
from gateway.settings import SETTINGS, Settings
from tests.support.gateway_fakes import FakeRender, ReadyModels, contents, form

FailedStart = Callable[..., tuple[int, str]]
COMMAND = (sys.executable, "-m", "gateway")


def environment(work: Path, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")}
    return {**inherited, "AVATAR_WORK_DIR": str(work), **settings}


def run(work: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(work, **settings), capture_output=True, text=True, timeout=60
    )


class Process:
    """A gateway process on a free port, without a Triton; `log` has all of its output so far."""

    def __init__(self, work: Path, **settings: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--host", "127.0.0.1", "--port", "0", "--triton", "127.0.0.1:1"],
            env=environment(work, **settings),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        self.url = ""
        listening = threading.Event()

        def read() -> None:
            for line in self.process.stderr or ():
                self.log += line
                if match := re.search(r"listening on (http://[0-9.:]+)", line):
                    self.url = match[1]
                    listening.set()

        self._reader = threading.Thread(target=read)
        self._reader.start()
        assert listening.wait(60), self.log

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        self._reader.join()
        assert self.process.stderr
        self.process.stderr.close()
        return status


@contextlib.contextmanager
def gateway(work: Path, **settings: str) -> Iterator[Process]:
    running = Process(work, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)


def test_help_lists_every_option_and_setting_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for name in ("--host", "--port", "--triton", "--log-level", *(setting.variable for setting in SETTINGS)):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (("--port", "70000"), {}, "AVATAR_PORT"),
        (("--triton", "nowhere"), {}, "AVATAR_TRITON_URL"),
        ((), {"AVATAR_MAX_JOBS": "none"}, "AVATAR_MAX_JOBS"),
        ((), {"AVATAR_STORE": "ftp://host/x"}, "AVATAR_STORE"),
    ],
)
def test_a_bad_setting_ends_with_2_and_one_clear_line(
    failed_start: FailedStart, arguments: tuple[str, ...], settings: dict[str, str], named: str
) -> None:
    status, printed = failed_start(*arguments, **settings)
    assert status == 2
    assert printed.startswith(f"python -m gateway: {named}: ")
    assert printed.count("\n") == 1


def test_an_unknown_option_ends_the_process_with_2(work: Path) -> None:
    done = run(work, "--prot", "1")
    assert done.returncode == 2
    assert "--prot" in done.stderr


def test_a_port_in_use_ends_with_1_and_one_clear_line(work: Path, failed_start: FailedStart) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, printed = failed_start("--host", "127.0.0.1", "--port", str(port))
    assert status == 1
    assert printed == f"python -m gateway: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert contents(work) == []


def test_ctrl_c_ends_the_gateway_with_0_and_no_file_is_left_and_its_log_can_be_json(work: Path) -> None:
    with gateway(work, AVATAR_LOG_FORMAT="json") as running:
        answer = httpx.get(f"{running.url}/ping", headers={"X-Request-ID": "id-7"})
        assert answer.json() == {"pong": "-"}
        assert len(contents(work)) == 1
        assert running.stop(signal.SIGINT) == 0
    assert contents(work) == []
    assert "Traceback" not in running.log
    access = [line for line in running.log.splitlines() if '"path": "/ping"' in line]
    assert len(access) == 1
    assert '"request_id": "id-7"' in access[0]


def test_without_triton_a_form_gets_503_and_ping_responds_until_a_signal_ends_it(work: Path) -> None:
    with gateway(work, AVATAR_MAX_JOB="3") as running:
        response = httpx.post(running.url, files=form(), timeout=60)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert httpx.get(f"{running.url}/health/ready", timeout=60).status_code == 503
        assert httpx.get(f"{running.url}/ping").status_code == 200
        assert running.stop(signal.SIGTERM) == 0
    assert contents(work) == []
    assert "Traceback" not in running.log
    assert "the models are called at Triton 127.0.0.1:1" in running.log
    (reason,) = re.findall(r"Triton at 127.0.0.1:1 does not serve: the models cannot be reached \((.*)\)", running.log)
    assert "127.0.0.1:1" in reason
    assert "refused" in reason
    assert "AVATAR_MAX_JOB is not a setting, and is ignored; did you mean AVATAR_MAX_JOBS?" in running.log


def test_a_stop_during_an_upload_does_not_wait_for_its_end(work: Path) -> None:
    with gateway(work, AVATAR_SHUTDOWN_GRACE="0.2") as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            kind = "multipart/form-data; boundary=b"
            head = f"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 99\r\nContent-Type: {kind}\r\n\r\n"
            client.sendall(head.encode() + b"--b\r\n")
            end = time.monotonic() + 60
            while len(contents(work)) < 2:
                assert time.monotonic() < end, running.log
                time.sleep(0.01)
            assert running.stop(signal.SIGTERM) == 0
            assert client.recv(12) == b"HTTP/1.1 503"
    assert contents(work) == []


async def test_the_next_gateway_removes_the_folder_of_a_killed_one_and_no_other_folder(work: Path) -> None:
    with gateway(work) as killed:
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    (left,) = contents(work)
    (left / "half a video").write_bytes(b"x")
    other = work / "of another program"
    other.mkdir()
    render: Any = FakeRender()
    first, second = (create_app(Settings(work_dir=work), ReadyModels(), render) for _ in range(2))
    async with first.router.lifespan_context(first), second.router.lifespan_context(second):
        assert not left.exists()
        assert len(contents(work)) == 3
    assert contents(work) == [other]


def test_the_gateway_imports_no_torch_no_tensorflow_and_no_exporter() -> None:
    code = (
        "import sys, gateway.server; "
        "print({'torch', 'tensorflow', 'onnxruntime', 'export', 'embedded', 'tf2onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "set()\n"
