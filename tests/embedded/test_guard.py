"""`python3 -m embedded.guard`, which runs Triton in its container: its exit statuses, over a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedded import command_line, guard, watchdog
from embedded.backend_directory import build_backends
from embedded.installation import find_installation
from embedded.ports import Ports, find_free
from embedded.stubs import find_stubs, read_process
from tests.support import tiny_models

TOKEN = "0" * 64
LIMIT = 60.0
_MODEL = """
import numpy as np, time
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        {work}
        answer = pb_utils.Tensor("y", np.zeros(1, np.float32))
        return [pb_utils.InferenceResponse([answer]) for _ in requests]
"""


@dataclass
class Guarded:
    process: subprocess.Popen[str]
    http: str

    @property
    def server(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (server,) = (int(pid) for pid in children if "watchdog" not in Path(f"/proc/{pid}/cmdline").read_text())
        return server

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, errors


def _repository(folder: Path, work: str = "pass") -> Path:
    """A repository with the model `face_nms`, which answers anything after `work`."""
    return tiny_models.add_face_nms(folder, _MODEL.format(work=work))


@contextmanager
def _guarded(models: Path, *, ready: bool = True) -> Iterator[Guarded]:
    """Run the guard over the server of NVIDIA's wheel; with `ready`, wait until every model is loaded."""
    found = find_installation()
    ports = Ports(find_free(), find_free(), find_free())
    backends = build_backends(models.parent, found)
    prefix = f"triton_python_backend_shm_region_{models.parent.name}-"
    server = command_line.arguments(found, models, backends, ports, prefix, TOKEN)
    http, metrics = f"127.0.0.1:{ports.http}", f"127.0.0.1:{ports.metrics}"
    argv = [sys.executable, "-m", "embedded.guard", "--http", http, "--metrics", metrics, "--", *server]
    log = models.parent / "log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            argv,
            env=command_line.environment(found, 1, os.environ),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        try:
            while ready and "guard: every model is loaded" not in (line := process.stderr.readline()):
                assert line, log.read_text()
            yield Guarded(process, http)
        finally:
            process.kill()


def test_the_death_of_a_models_process_ends_the_guard_with_3(tmp_path: Path) -> None:
    with _guarded(_repository(tmp_path / "models")) as guarded:
        server = guarded.server
        (stub,) = find_stubs(server)
        os.kill(stub.pid, signal.SIGKILL)
        status, errors = guarded.ended()
    assert status == 3
    assert f"guard: the process of the model face_nms died (process {stub.pid})" in errors
    assert read_process(server) is None


@pytest.mark.slow
def test_a_model_that_hangs_ends_the_guard_with_4(tmp_path: Path) -> None:
    with _guarded(_repository(tmp_path / "models", "time.sleep(600)")) as guarded:
        status, errors = guarded.ended()
    assert status == 4
    assert "guard: the model face_nms hangs: no answer for" in errors


def test_a_server_that_ends_by_itself_ends_the_guard_with_5(tmp_path: Path) -> None:
    with _guarded(_repository(tmp_path / "models")) as guarded:
        os.kill(guarded.server, signal.SIGKILL)
        status, errors = guarded.ended()
    assert status == 5
    assert "guard: Triton ended by itself (signal 9)" in errors


def test_a_server_that_does_not_start_ends_the_guard_with_1(tmp_path: Path) -> None:
    models = _repository(tmp_path / "models")
    (models / "face_nms" / "1" / "model.py").write_text("import no_such_module")
    with _guarded(models, ready=False) as guarded:
        status, errors = guarded.ended()
    assert status == 1
    assert "guard: Triton ended before it was ready (exit status 1)" in errors


def test_the_token_is_in_no_list_of_processes_once_the_server_is_ready(tmp_path: Path) -> None:
    with _guarded(_repository(tmp_path / "models")) as guarded:
        for pid in (guarded.process.pid, guarded.server):
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
            assert ":avatar-token=" in arguments and TOKEN not in arguments


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_the_server_and_ends_the_guard_with_0(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "CHECK_SECONDS", LIMIT)  # the first call of a Python model takes long
    with _guarded(_repository(tmp_path / "models")) as guarded:
        assert guard.main(["--check", "--http", guarded.http]) == 0
        server = guarded.server
        guarded.process.send_signal(number)
        status, errors = guarded.ended()
    assert status == 0
    assert "guard: stopped (exit status 0)" in errors
    assert read_process(server) is None


def test_a_killed_guard_leaves_no_server(tmp_path: Path) -> None:
    with _guarded(_repository(tmp_path / "models")) as guarded:
        server = guarded.server
        guarded.process.kill()
        end = time.monotonic() + LIMIT
        while watchdog.group_runs(server):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_check_names_a_model_that_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _guarded(_repository(tmp_path / "models", "time.sleep(600)")) as guarded:
        begin = time.monotonic()
        assert guard.main(["--check", "--http", guarded.http]) == 1
        assert time.monotonic() - begin < LIMIT
    assert capsys.readouterr().err == "guard: face_nms: no answer\n"


def test_a_check_without_a_server_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(["--check", "--http", f"127.0.0.1:{find_free()}"]) == 1
    assert "wav2lip: no answer" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["--check"], ["--check", "--http", "127.0.0.1:1", "--", "tritonserver"]])
def test_wrong_usage_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        guard.main(argv)
    assert ended.value.code == 2
    assert "usage: python3 -m embedded.guard" in capsys.readouterr().err


def test_a_command_that_does_not_exist_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedded.guard", "--", str(tmp_path / "tritonserver")],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 1
    assert "guard: the server cannot be started" in done.stderr


def test_the_guard_imports_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.path.insert(0, '.'); import embedded.guard; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    packages = {name.partition(".")[0] for name in loaded.split()} - set(sys.stdlib_module_names)
    assert packages - {"__main__", "sitecustomize", "usercustomize"} == {"embedded"}
