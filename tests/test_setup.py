"""`make setup` checks for what pip cannot install before it installs anything, and installs perf_analyzer."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# a Python whose build has no shared library, as pyenv makes it by default
STATIC = (
    "import sys, sysconfig; sysconfig.get_config_var = lambda name: None; "
    "sys.base_prefix = '/opt/static'; sys.path.insert(0, ''); exec(sys.stdin.read())"
)
OLD_GLIBC = (
    "import platform, sys; platform.libc_ver = lambda: ('glibc', '2.31'); "
    "sys.path.insert(0, ''); exec(sys.stdin.read())"
)


def setup(folder: Path, python: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run the script with `python` (a shell script) in place of Python 3.11."""
    fake_python = folder / "python3.11"
    fake_python.write_text(f"#!/bin/sh\n{python}\n")
    fake_python.chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    settings = {"PATH": path, "PYTHON": str(fake_python), "VENV": str(folder / "venv")}
    done = subprocess.run(
        [bash, "scripts/setup.sh"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    return done


def test_a_missing_python_is_reported_with_the_package_to_install(tmp_path: Path) -> None:
    done = setup(tmp_path, "exit 127", path=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.startswith("setup: no Python found")
    assert "apt-get install python3" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_another_python_is_not_used_in_place_of_the_requested_one(tmp_path: Path) -> None:
    done = setup(tmp_path, "exit 127")
    assert done.returncode == 1
    assert done.stderr.startswith(f"setup: no Python found as {tmp_path}/python3.11")
    assert not (tmp_path / "venv").exists()


PYTHONS = {
    "another version": (
        "case $* in *version_info*) echo 3.14 ;; esac",
        "is 3.14. On Debian 12 and Ubuntu 24.04: apt-get install python3",
    ),
    "one that Triton's stub does not work with": (
        "case $* in *version_info*) echo 3.13 ;; esac",
        "NVIDIA's Triton wheel needs numpy 1, which has no wheel for 3.13.",
    ),
    "without venv": (
        "case $* in *version_info*) echo 3.12 ;; *ensurepip*) exit 1 ;; esac",
        "no venv module. On Debian and Ubuntu: apt-get install python3.12-venv",
    ),
    "without a shared library": (
        f'[ "$1" = - ] && exec {sys.executable} -c "{STATIC}"; exec {sys.executable} "$@"',
        f"libpython{VERSION}.so.1.0, the shared library of ",
    ),
    "on a glibc that is too old": (
        f'[ "$1" = - ] && exec {sys.executable} -c "{OLD_GLIBC}"; exec {sys.executable} "$@"',
        "needs glibc 2.35 or newer, this is glibc 2.31; use Debian 12",
    ),
}


@pytest.mark.parametrize("kind", PYTHONS)
def test_a_missing_system_part_is_named_before_anything_is_installed(tmp_path: Path, kind: str) -> None:
    python, message = PYTHONS[kind]
    done = setup(tmp_path, python)
    assert done.returncode == 1, done.stdout
    assert not (tmp_path / "venv").exists()  # nothing was installed
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: ")
    assert message in line


def environment(folder: Path, python: str) -> None:
    """Create the environment of an earlier run, with `python` (a shell script) as its Python."""
    program = folder / "venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o755)


def test_an_environment_without_pip_yet_is_completed(tmp_path: Path) -> None:
    environment(tmp_path, f'case $* in *pip*) exit 1 ;; esac; exec {sys.executable} "$@"')
    done = setup(tmp_path, f'[ "$2" = venv ] && echo "makes $3" && exit 3; exec {sys.executable} "$@"')
    assert done.stdout == f"makes {tmp_path}/venv\n"
    assert done.returncode == 3  # the fake Python ends the script here


def test_an_environment_of_another_python_is_reported_and_not_changed(tmp_path: Path) -> None:
    environment(tmp_path, "case $* in *version_info*) echo 3.10 ;; esac")
    done = setup(tmp_path, f'exec {sys.executable} "$@"')
    assert done.returncode == 1
    expected = f"the environment in {tmp_path}/venv is of Python 3.10, not {VERSION}; remove it and try again"
    assert done.stderr == f"setup: {expected}\n"


@pytest.mark.parametrize(("installed", "version"), [(["3.13", "3.12"], "3.12"), (["3.12", "3.11"], "3.11")])
def test_by_default_the_oldest_supported_python_on_the_path_is_used(
    tmp_path: Path, installed: list[str], version: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in ("bash", "grep", "sed", "cat"):
        place = shutil.which(tool)
        assert place
        (programs / tool).symlink_to(place)
    for each in installed:
        program = programs / f"python{each}"
        program.write_text(f"#!/bin/sh\ncase $* in *version_info*) echo {each} ;; *ensurepip*) exit 1 ;; esac\n")
        program.chmod(0o755)
    settings = {"PATH": str(programs), "PYTHON": "", "VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        ["bash", "scripts/setup.sh"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"apt-get install python{version}-venv" in done.stderr  # the next check of that Python has failed


@pytest.fixture(scope="module")
def installer() -> Any:
    """scripts/install_perf_analyzer.py as a module."""
    spec = importlib.util.spec_from_file_location("perf_analyzer_setup", ROOT / "scripts" / "install_perf_analyzer.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BINARY = b'#!/bin/sh\necho "$LD_LIBRARY_PATH|$*"\n'
HASH = hashlib.sha256(BINARY).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with a perf_analyzer that prints its library path and its arguments."""
    path = tmp_path / "tritonclient.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tritonclient-2.51.0.data/data/bin/perf_analyzer", BINARY)
    return path


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    folder = tmp_path / "libs"
    folder.mkdir()
    for name in ("libb64-98cb6333.so.0d", "libcudart-09529672.so.12.6.77", "libcurl-75a2bf80.so.4.7.0"):
        (folder / name).write_text(name)
    return folder


def environment_of(folder: Path) -> Path:
    target = folder / "environment"
    (target / "bin").mkdir(parents=True)
    (target / "bin" / "perf_analyzer").write_bytes(b"tritonclient's own, for a newer glibc")
    return target


def test_the_environments_perf_analyzer_runs() -> None:
    program = Path(sys.executable).with_name("perf_analyzer")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stderr}; `make setup` installs it"
    assert "Perf Analyzer Version 2.51.0" in done.stdout + done.stderr


def test_setup_does_not_replace_a_working_perf_analyzer_and_prints_nothing() -> None:
    script = ROOT / "scripts" / "install_perf_analyzer.py"
    done = subprocess.run([sys.executable, script], cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_launcher_finds_the_libraries_from_any_folder(
    installer: Any, tmp_path: Path, wheel: Path, libraries: Path
) -> None:
    target = environment_of(tmp_path)
    assert not installer.is_installed(target, libraries, HASH)
    installer.install(target, libraries, wheel, HASH)
    assert installer.is_installed(target, libraries, HASH)
    link = tmp_path / "elsewhere"
    link.symlink_to(target / "bin" / "perf_analyzer")
    done = subprocess.run([link, "-m", "a b"], capture_output=True, text=True, cwd="/", check=True)
    folder, _, arguments = done.stdout.strip().partition("|")
    assert arguments == "-m a b"
    searched = Path(folder.split(":")[0])
    assert (searched / "libb64.so.0d").read_text() == "libb64-98cb6333.so.0d"
    assert (searched / "libcudart.so.12").read_text() == "libcudart-09529672.so.12.6.77"


def test_a_launcher_that_pip_has_overwritten_is_detected(
    installer: Any, tmp_path: Path, wheel: Path, libraries: Path
) -> None:
    target = environment_of(tmp_path)
    installer.install(target, libraries, wheel, HASH)
    (target / "bin" / "perf_analyzer").write_bytes(b"tritonclient's own, installed again")
    assert not installer.is_installed(target, libraries, HASH)
    installer.install(target, libraries, wheel, HASH)
    assert installer.is_installed(target, libraries, HASH)
    assert not list(target.rglob("*.part"))


def test_a_binary_with_another_hash_is_not_installed(
    installer: Any, tmp_path: Path, wheel: Path, libraries: Path
) -> None:
    target = environment_of(tmp_path)
    with pytest.raises(installer.SetupError, match="has another hash than expected"):
        installer.install(target, libraries, wheel)
    assert (target / "bin" / "perf_analyzer").read_bytes().startswith(b"tritonclient's own")
    assert not list(target.rglob("*.part"))


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    installer: Any, tmp_path: Path, wheel: Path
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(installer.SetupError, match=r"lacks libb64.*: pip install .* nvidia-pytriton"):
        installer.install(environment_of(tmp_path), tmp_path / "none", wheel, HASH)


def test_an_index_without_the_wheel_is_reported_in_one_sentence(
    installer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(installer.SetupError, match=r"^pip cannot download tritonclient==2\.51\.0: ERROR: .+$"):
        installer.fetch(tmp_path)


def test_a_perf_analyzer_that_does_not_run_is_reported_with_its_message(installer: Any, tmp_path: Path) -> None:
    target = environment_of(tmp_path)
    program = target / "bin" / "perf_analyzer"
    program.write_text("#!/bin/sh\necho libssl.so.3: cannot open shared object file >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(installer.SetupError, match=r"it does not run here: libssl\.so\.3: cannot open"):
        installer.check_runs(target)
