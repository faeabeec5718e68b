"""Starting and stopping the server: its requirements, its messages, and its clean-up."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embedded import watchdog
from embedded.errors import BadRepository, EmbeddedError, PortBusy, ServerDied, StartFailed
from embedded.server import Triton
from tests.support import tiny_models
from tests.support.triton_calls import caller

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1 as /proc/net shows it, and mapped to IPv6
LAST_WORDS = "the last words of the run before"
TIMEOUT = 60.0  # seconds after which a test stops waiting


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    tiny_models.add_arithmetic(folder)
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server that no test stops, with HTTP, whose log replaces one of an earlier run."""
    models, log = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("logs") / "triton.log"
    tiny_models.add_arithmetic(models)
    log.write_text(LAST_WORDS)
    with Triton(models, http_port=0, log=log) as triton:
        yield triton


@pytest.fixture
def temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the server."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)  # the value of TMPDIR that tempfile has cached
    return folder


def _folders(temp_folder: Path) -> list[Path]:
    return list(temp_folder.glob("embedded-triton-*"))


def _regions(folder: str) -> list[str]:
    return [region.name for region in watchdog.SHM.glob(f"triton_python_backend_shm_region_{folder}-*")]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


def test_a_stopped_server_leaves_no_process_region_or_folder(models: Path, temp_folder: Path) -> None:
    with Triton(models) as triton, caller(triton.grpc_address) as call:
        x = np.ones((1, 4), np.float32)
        np.testing.assert_array_equal(call("arithmetic", {"x": x, "y": x})["sum"], x + x)
        group = triton.pid
        (folder,) = _folders(temp_folder)
        assert _regions(folder.name)
        assert watchdog.group_runs(group)
    assert not watchdog.group_runs(group)
    assert not _regions(folder.name)
    assert not _folders(temp_folder)


def test_every_service_listens_on_the_loopback_only(running: Triton) -> None:
    addresses = [running.http_address, running.grpc_address, running.metrics_address]
    assert len(set(addresses)) == 3
    listening = _listeners()
    for address in addresses:
        host, _, port = address.partition(":")
        assert host == "127.0.0.1"
        assert listening[int(port)] <= LOOPBACK


def test_two_servers_run_side_by_side_with_a_log_each(running: Triton, models: Path, tmp_path: Path) -> None:
    with Triton(models, log=tmp_path / "new" / "triton.log") as other:
        assert running.grpc_address != other.grpc_address
        for server in (running, other):
            with caller(server.grpc_address) as call:
                assert call.client.is_server_ready()


def test_a_gentle_stop_is_no_fault_and_the_server_starts_again(models: Path) -> None:
    triton = Triton(models, canaries=True)
    for _ in range(2):
        with triton, caller(triton.grpc_address) as call:
            assert call.client.is_model_ready("arithmetic")
            triton.wait(0.5)
    triton.stop()  # a second stop has no effect
    with pytest.raises(EmbeddedError, match="not running"):
        _ = triton.pid


def test_the_log_goes_to_the_given_file_and_that_of_the_run_before_is_kept(running: Triton) -> None:
    log = running.log_path.read_text()
    assert "successfully loaded 'arithmetic'" in log
    assert LAST_WORDS not in log
    assert running.log_path.with_name("triton.log.1").read_text() == LAST_WORDS


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_named_with_its_flag_before_anything_is_started(
    models: Path, temp_folder: Path, name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(PortBusy, match=rf"^--{name}-port {port}: .*in use"):
            Triton(models, **{f"{name}_port": port}).start()
    assert not _folders(temp_folder)


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()], ids=["missing", "empty"])
def test_a_repository_without_models_is_rejected(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "models")
    with pytest.raises(BadRepository, match=r"models: no .*python -m export models"):
        Triton(tmp_path / "models").start()


def test_a_broken_network_is_named_with_its_reason_and_no_folder_is_left(models: Path, temp_folder: Path) -> None:
    tiny_models.add_arithmetic(models, "broken").write_bytes(b"junk")
    with pytest.raises(StartFailed, match=r"^model broken does not load: .*Protobuf parsing failed") as failed:
        Triton(models).start()
    assert "\n" not in str(failed.value)
    assert ".py(" not in str(failed.value)
    assert not _folders(temp_folder)


def test_every_model_that_does_not_load_is_named(models: Path) -> None:
    tiny_models.add_arithmetic(models, "gone").unlink()
    tiny_models.add_python(models, "unimportable", "import no_such_module")
    (models / "unreadable").mkdir()
    (models / "unreadable" / "config.pbtxt").write_text("nonsense {")
    with pytest.raises(StartFailed) as failed:
        Triton(models).start()
    message = str(failed.value)
    assert "model gone does not load: " in message
    assert "model.onnx is missing" in message
    assert "model unimportable does not load: ModuleNotFoundError: No module named 'no_such_module'" in message
    assert "model unreadable does not load: " in message
    assert 'no field named "nonsense"' in message
    assert "arithmetic" not in message


def test_a_model_that_never_finishes_loading_times_out_and_is_named(models: Path, temp_folder: Path) -> None:
    tiny_models.add_python(models, "endless", "import time\nwhile True: time.sleep(1)")
    # on a busy machine the other model may take as long
    waiting = r"[01] of 2 models loaded, waiting for (arithmetic, )?endless"
    with pytest.raises(StartFailed, match=f"not ready after 3 s; {waiting}"):
        Triton(models, start_timeout=3, stop_timeout=1).start()
    assert not _folders(temp_folder)


SLOW = """
import pathlib, time
class TritonPythonModel:
    def initialize(self, args):
        while not pathlib.Path({release!r}).exists():
            time.sleep(0.05)
"""


def test_progress_names_the_models_that_are_still_loading(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedded.server._PROGRESS_SECONDS", 0.1)
    release = tmp_path / "release"
    tiny_models.add_python(models, "slow", SLOW.format(release=str(release)))
    lines: list[str] = []

    def on_progress(line: str) -> None:
        lines.append(line)
        if line.startswith("1 of 2 models loaded"):
            release.touch()

    with Triton(models, on_progress=on_progress, start_timeout=TIMEOUT):
        assert any(re.fullmatch(r"1 of 2 models loaded, waiting for slow \(\d+ s\)", line) for line in lines)


def test_the_unexpected_end_of_a_server_is_reported(models: Path) -> None:
    with Triton(models) as triton:
        triton.wait(timeout=0.1)  # while the server runs, waiting raises no error
        os.kill(triton.pid, signal.SIGKILL)
        with pytest.raises(ServerDied, match="signal 9"):
            triton.wait(timeout=TIMEOUT)


def test_a_server_that_does_not_stop_is_killed_with_its_models(models: Path, temp_folder: Path) -> None:
    with Triton(models, stop_timeout=0.2) as triton:
        group, (folder,) = triton.pid, _folders(temp_folder)
        os.kill(group, signal.SIGSTOP)  # it will not process SIGTERM
    assert not watchdog.group_runs(group)
    assert not _regions(folder.name)
    assert not _folders(temp_folder)


def test_a_server_does_not_outlive_a_killed_owner(models: Path, temp_folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from embedded.server import Triton\n"
        "with Triton(Path(sys.argv[1])) as triton: print(triton.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(models)], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            group, (folder,) = int(owner.stdout.readline()), _folders(temp_folder)
            assert watchdog.group_runs(group)
        finally:
            owner.kill()
    _until(lambda: not watchdog.group_runs(group) and not folder.exists())
    assert not _regions(folder.name)


def _listeners() -> dict[int, set[str]]:
    """Return the addresses of all listeners by port, in the kernel's hexadecimal notation."""
    addresses: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, _, port = local.partition(":")
                addresses.setdefault(int(port, 16), set()).add(address)
    return addresses
