"""The client as it is installed: its wheel, in an environment with the packages that it requires and no others.

`pipx install` and `pip install` take the packages from an index; here they are links to those of this environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import avatar_client
from scripts.requirements_closure import closure
from tests.support import virtualenvs

CLIENT = Path(__file__).parents[2] / "client"
AWAY = ("--url", "http://127.0.0.1:1", "--server", "127.0.0.1:1")


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command without a package index, and without this checkout on its path; return its output."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "AVATAR"))
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves folders next to the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    return virtualenvs.build_wheel(virtualenvs.copy_of_sources(CLIENT, folder), folder / "wheel")


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `avatar` of an environment into which the wheel was installed."""
    needed = virtualenvs.needed_by(wheel)
    assert sorted(requirement.partition("[")[0] for requirement in needed) == ["numpy", "tritonclient"]
    python = virtualenvs.make(tmp_path_factory.mktemp("installed") / "venv", closure(needed))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel, cwd=wheel.parent)
    return python.with_name("avatar")


def test_the_installed_command_works_without_the_checkout(command: Path, tmp_path: Path) -> None:
    assert run(command, "--version", cwd=tmp_path) == f"avatar {avatar_client.__version__}\n"
    assert {path.suffix for path in command.parents[1].rglob("avatar_client/completion.*")} == {
        ".bash",
        ".zsh",
        ".fish",
    }
    document = json.loads(run(command, "doctor", "--json", *AWAY, cwd=tmp_path, status=1))
    checks = {check["name"]: check for check in document["checks"]}
    assert (checks["client"]["level"], checks["gateway"]["level"], checks["triton"]["level"]) == (
        *("ok", "problem", "problem"),
    )
    assert checks["preview"]["details"] == {"installed": False}


def test_the_extra_of_preview_is_in_the_metadata(wheel: Path) -> None:
    assert any(line.startswith("opencv-python-headless") for line in virtualenvs.needed_by(wheel, "preview"))
