"""The parts of the launcher that need no server."""

from __future__ import annotations

import socket
import stat
import sys
from pathlib import Path

import pytest

from embedded import access, backend_directory, command_line, installation, ports
from embedded.errors import MissingDependency, PortBusy
from embedded.startup_log import StartupLog
from lipsync.triton.cpu import THREADS_VARIABLE

NAMES = ("http", "grpc", "metrics")


@pytest.mark.parametrize(
    ("system_name", "machine", "libc", "message"),
    [
        ("Darwin", "arm64", ("", ""), "Linux x86-64 only, this is Darwin arm64"),
        ("Linux", "aarch64", ("glibc", "2.36"), "Linux x86-64 only"),
        ("Linux", "x86_64", ("glibc", "2.31"), "glibc 2.35 or newer, this is glibc 2.31"),
        ("Linux", "x86_64", ("", ""), "glibc 2.35 or newer, this is another libc"),
    ],
)
def test_a_machine_that_cannot_run_the_wheel_is_rejected(
    system_name: str, machine: str, libc: tuple[str, str], message: str
) -> None:
    with pytest.raises(MissingDependency, match=message):
        installation.check_platform(system_name, machine, libc)


@pytest.mark.parametrize("version", ["2.35", "2.36", "3.0"])
def test_a_machine_that_can_run_the_wheel_is_accepted(version: str) -> None:
    installation.check_platform("Linux", "x86_64", ("glibc", version))


def test_numpy_2_is_rejected_because_the_stub_reads_its_arrays_as_empty() -> None:
    installation.check_numpy("1.26.4")
    with pytest.raises(
        MissingDependency, match=r"need numpy 1, this is numpy 2\.4\.6 on Python 3\.\d+; use Python 3\.11 or"
    ):
        installation.check_numpy("2.4.6")


def test_the_first_folder_with_the_shared_library_is_taken(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders[1:]:
        folder.mkdir()
        (folder / f"libpython{installation.PYTHON}.so.1.0").touch()
    assert installation.find_libpython(folders) == folders[1]


def test_a_missing_shared_library_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=rf"libpython{installation.PYTHON}\.so.*(install|--enable-shared)"):
        installation.find_libpython([tmp_path])


def test_the_backend_directory_holds_the_python_backend_and_its_stub(tmp_path: Path) -> None:
    parts = installation.find_installation()
    backends = backend_directory.build_backends(tmp_path, parts)
    python = backends / "python"
    assert {"libtriton_python.so", "triton_python_backend_utils.py"} <= {file.name for file in python.iterdir()}
    assert (python / "triton_python_backend_stub").stat().st_mode & stat.S_IXUSR
    assert not any(file.is_symlink() for file in backends.rglob("*"))
    assert (backends / "onnxruntime" / "model.py").is_file()


def test_the_environment_puts_the_running_python_first() -> None:
    parts = installation.find_installation()
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/opt/lib", "PYTHONHOME": "/elsewhere", "LANG": "C"}
    base[access.TOKEN_VARIABLE] = "models-do-not-need-it"
    variables = command_line.environment(parts, 3, base)
    assert variables["LD_LIBRARY_PATH"].split(":") == [str(parts.libpython), str(parts.libraries), "/opt/lib"]
    assert variables["PATH"].split(":") == [str(Path(sys.executable).parent), "/usr/bin"]
    assert variables["LANG"] == "C"
    assert not {"PYTHONHOME", access.TOKEN_VARIABLE} & set(variables)
    assert variables[THREADS_VARIABLE] == "3"


def test_requested_ports_are_kept_and_zeros_become_free_ports() -> None:
    chosen = ports.choose({"http": 0, "grpc": 0, "metrics": 0})
    assert len({chosen.http, chosen.grpc, chosen.metrics}) == 3
    again = ports.choose({"http": chosen.http, "grpc": 0, "metrics": chosen.metrics})
    assert (again.http, again.metrics) == (chosen.http, chosen.metrics)
    assert all(ports.is_free(port) for port in (again.grpc, again.metrics))


def test_http_has_no_port_unless_one_is_asked_for() -> None:
    assert ports.choose({"http": None, "grpc": 0, "metrics": 0}).http is None


def test_a_port_with_a_listener_on_all_addresses_is_in_use() -> None:
    with socket.create_server(("0.0.0.0", 0)) as busy:  # noqa: S104 - the case under test
        port = busy.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(PortBusy, match=f"--metrics-port {port}"):
            ports.choose({"http": 0, "grpc": 0, "metrics": port})


def test_one_port_for_two_services_is_rejected() -> None:
    port = ports.choose(dict.fromkeys(NAMES, 0)).grpc
    with pytest.raises(PortBusy, match=f"--grpc-port {port}: two services"):
        ports.choose({"http": port, "grpc": port, "metrics": 0})


def test_the_log_shows_which_models_load_are_ready_or_have_failed(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    with path.open("w") as written, path.open() as read:
        log = StartupLog()
        written.write('I1122 17:19:07.880501 1 model_lifecycle.cc:472] "loading: a:1"\n')
        written.write('I1122 17:19:07.880501 1 model_lifecycle.cc:472] "loading: b:1"\nI1122 17:19:08.2741')
        written.flush()
        log.read(read)
        assert (log.loading, log.loaded) == (["a", "b"], [])
        written.write("26 1 model_lifecycle.cc:839] \"successfully loaded 'a'\"\nanything a model prints\n")
        written.write(
            "E1122 17:19:08.599001 1 model_lifecycle.cc:642] \"failed to load 'b' version 1: Internal: "
            'ValueError: \\"no\\"\\n\\nAt:\\n  /x/model.py(8): initialize\\n"\n'
        )
        written.flush()
        log.read(read)
        assert (log.loading, log.loaded) == ([], ["a"])
        assert log.failed == {"b": 'ValueError: "no"'}


def test_the_last_error_is_kept_in_case_the_server_ends() -> None:
    log = StartupLog()
    log.feed("/x/tritonserver: error while loading shared libraries: libfoo.so: cannot open")
    assert log.last_error == ""
    log.feed("error: creating server: Internal - failed to load all models")
    assert log.last_error == "error: creating server: Internal - failed to load all models"
