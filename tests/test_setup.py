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
    """Run the script with `python` (a shell script) in the place of Python 3.11."""
    pretended = folder / "python3.11"
    pretended.write_text(f"#!/bin/sh\n{python}\n")
    pretended.chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    settings = {"PATH": path, "PYTHON": str(pretended), "VENV": str(folder / "venv")}
    done = subprocess.run(
        [bash, "scripts/setup.sh"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    return done


def test_no_python_at_all_is_named_with_what_brings_it(tmp_path: Path) -> None:
    done = setup(tmp_path, "exit 127", path=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert done.stderr.startswith("setup: no Python found")
    assert "apt-get install python3" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_another_python_is_not_taken_for_the_one_that_was_asked_for(tmp_path: Path) -> None:
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
    python, said = PYTHONS[kind]
    done = setup(tmp_path, python)
    assert done.returncode == 1, done.stdout
    assert not (tmp_path / "venv").exists()  # nothing was begun
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: ")
    assert said in line


def environment(folder: Path, python: str) -> None:
    """What an earlier run left: `python` (a shell script) as its Python."""
    there = folder / "venv" / "bin" / "python"
    there.parent.mkdir(parents=True)
    there.write_text(f"#!/bin/sh\n{python}\n")
    there.chmod(0o755)


def test_an_environment_without_pip_yet_is_completed(tmp_path: Path) -> None:
    environment(tmp_path, f'case $* in *pip*) exit 1 ;; esac; exec {sys.executable} "$@"')
    done = setup(tmp_path, f'[ "$2" = venv ] && echo "makes $3" && exit 3; exec {sys.executable} "$@"')
    assert done.stdout == f"makes {tmp_path}/venv\n"
    assert done.returncode == 3  # the test's way to go no further


def test_an_environment_of_another_python_is_named_and_left_alone(tmp_path: Path) -> None:
    environment(tmp_path, "case $* in *version_info*) echo 3.10 ;; esac")
    done = setup(tmp_path, f'exec {sys.executable} "$@"')
    assert done.returncode == 1
    expected = f"the environment in {tmp_path}/venv is of Python 3.10, not {VERSION}; remove it and try again"
    assert done.stderr == f"setup: {expected}\n"


@pytest.mark.parametrize(("found", "version"), [(["3.13", "3.12"], "3.12"), (["3.12", "3.11"], "3.11")])
def test_without_a_wish_the_oldest_supported_python_that_is_found_is_taken(
    tmp_path: Path, found: list[str], version: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in ("bash", "grep", "sed", "cat"):
        place = shutil.which(tool)
        assert place
        (programs / tool).symlink_to(place)
    for each in found:
        program = programs / f"python{each}"
        program.write_text(f"#!/bin/sh\ncase $* in *version_info*) echo {each} ;; *ensurepip*) exit 1 ;; esac\n")
        program.chmod(0o755)
    settings = {"PATH": str(programs), "PYTHON": "", "VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        ["bash", "scripts/setup.sh"], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"apt-get install python{version}-venv" in done.stderr  # it went on to that Python's next check


@pytest.fixture(scope="module")
def bringer() -> Any:
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
    """A wheel with a perf_analyzer that says where it looks for libraries, and its arguments."""
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
    there = folder / "environment"
    (there / "bin").mkdir(parents=True)
    (there / "bin" / "perf_analyzer").write_bytes(b"tritonclient's own, for a newer glibc")
    return there


def test_the_environments_perf_analyzer_runs() -> None:
    program = Path(sys.executable).with_name("perf_analyzer")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stderr}; `make setup` brings it"
    assert "Perf Analyzer Version 2.51.0" in done.stdout + done.stderr


def test_setup_leaves_a_perf_analyzer_that_works_alone_and_says_nothing() -> None:
    script = ROOT / "scripts" / "install_perf_analyzer.py"
    done = subprocess.run([sys.executable, script], cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_launcher_finds_the_libraries_from_anywhere(
    bringer: Any, tmp_path: Path, wheel: Path, libraries: Path
) -> None:
    there = environment_of(tmp_path)
    assert not bringer.is_there(there, libraries, HASH)
    bringer.install(there, libraries, wheel, HASH)
    assert bringer.is_there(there, libraries, HASH)
    link = tmp_path / "elsewhere"
    link.symlink_to(there / "bin" / "perf_analyzer")
    done = subprocess.run([link, "-m", "a b"], capture_output=True, text=True, cwd="/", check=True)
    folder, _, arguments = done.stdout.strip().partition("|")
    assert arguments == "-m a b"
    searched = Path(folder.split(":")[0])
    assert (searched / "libb64.so.0d").read_text() == "libb64-98cb6333.so.0d"
    assert (searched / "libcudart.so.12").read_text() == "libcudart-09529672.so.12.6.77"


def test_what_pip_laid_over_the_launcher_is_noticed(bringer: Any, tmp_path: Path, wheel: Path, libraries: Path) -> None:
    there = environment_of(tmp_path)
    bringer.install(there, libraries, wheel, HASH)
    (there / "bin" / "perf_analyzer").write_bytes(b"tritonclient's own, installed again")
    assert not bringer.is_there(there, libraries, HASH)
    bringer.install(there, libraries, wheel, HASH)
    assert bringer.is_there(there, libraries, HASH)
    assert not list(there.rglob("*.part"))


def test_another_binary_than_the_one_that_was_tried_is_not_installed(
    bringer: Any, tmp_path: Path, wheel: Path, libraries: Path
) -> None:
    there = environment_of(tmp_path)
    with pytest.raises(bringer.SetupError, match="has another hash than expected"):
        bringer.install(there, libraries, wheel)
    assert (there / "bin" / "perf_analyzer").read_bytes().startswith(b"tritonclient's own")
    assert not list(there.rglob("*.part"))


def test_a_missing_library_is_named_with_what_brings_it(bringer: Any, tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(bringer.SetupError, match=r"lacks libb64.*: pip install .* nvidia-pytriton"):
        bringer.install(environment_of(tmp_path), tmp_path / "none", wheel, HASH)


def test_an_index_without_the_wheel_is_told_in_one_sentence(
    bringer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(bringer.SetupError, match=r"^pip cannot download tritonclient==2\.51\.0: ERROR: .+$"):
        bringer.fetch(tmp_path)


def test_one_that_does_not_run_here_is_told_in_its_own_words(bringer: Any, tmp_path: Path) -> None:
    there = environment_of(tmp_path)
    program = there / "bin" / "perf_analyzer"
    program.write_text("#!/bin/sh\necho libssl.so.3: cannot open shared object file >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(bringer.SetupError, match=r"it does not run here: libssl\.so\.3: cannot open"):
        bringer.try_it(there)
