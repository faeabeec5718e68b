"""`make setup` looks for what pip cannot bring before it installs anything, and names what brings it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
    assert "apt-get install python3.11" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_another_python_is_not_taken_for_the_one_that_was_asked_for(tmp_path: Path) -> None:
    done = setup(tmp_path, "exit 127")
    assert done.returncode == 1
    assert done.stderr.startswith(f"setup: no Python found as {tmp_path}/python3.11")
    assert not (tmp_path / "venv").exists()


PYTHONS = {
    "another version": ("case $* in *version_info*) echo 3.12 ;; esac", "is 3.12. On Debian 12: apt-get install"),
    "without venv": (
        "case $* in *version_info*) echo 3.11 ;; *ensurepip*) exit 1 ;; esac",
        "no venv module. On Debian 12: apt-get install python3.11-venv",
    ),
    "without a shared library": (
        f'[ "$1" = - ] && exec {sys.executable} -c "{STATIC}"; exec {sys.executable} "$@"',
        "libpython3.11.so.1.0, the shared library of ",
    ),
    "on a glibc that is too old": (
        f'[ "$1" = - ] && exec {sys.executable} -c "{OLD_GLIBC}"; exec {sys.executable} "$@"',
        "needs glibc 2.35 or newer, this is glibc 2.31: use Debian 12",
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
    environment(tmp_path, "case $* in *version_info*) echo 3.12 ;; esac")
    done = setup(tmp_path, f'exec {sys.executable} "$@"')
    assert done.returncode == 1
    assert done.stderr == f"setup: the environment in {tmp_path}/venv is of Python 3.12; remove it and try again\n"
