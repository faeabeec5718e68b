"""Fixtures for the tests of the examples: small files, and a way to run a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support import sample_files

EXAMPLES = Path(__file__).parents[2] / "examples"
NOWHERE = "http://127.0.0.1:1"
RUN_SECONDS = 180  # on a busy machine

Run = Callable[..., subprocess.CompletedProcess[str]]


@cache
def node_version() -> int:
    """Return the version of Node, such as 20; 0 where there is none."""
    found = shutil.which("node")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout if found else ""
    return int(version.lstrip("v").partition(".")[0] or 0)


def need_node() -> None:
    """Skip the test where there is no Node 20; CI has it."""
    if node_version() < 20:
        assert not os.environ.get("CI"), "the examples in JavaScript need Node 20"
        pytest.skip("there is no Node 20 here, which the examples in JavaScript need")


@pytest.fixture(scope="session")
def material(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with face.png (320x240) and speech.wav, small enough to be quick."""
    return sample_files.write(samples, tmp_path_factory.mktemp("material"), "face.png")


@pytest.fixture
def run(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("post_form.py", "face.png", …, AVATAR_URL=url)`: a program of examples/, in a folder with small files."""
    for file in material.iterdir():
        shutil.copy(file, tmp_path)
    for name in ("AVATAR_URL", "AVATAR_SERVER", "AVATAR_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        if name.endswith(".mjs"):
            need_node()
        program = {".py": sys.executable, ".mjs": "node", ".sh": "sh"}[Path(name).suffix]
        return subprocess.run(
            [program, str(EXAMPLES / name), *arguments],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )

    return run
