"""The gRPC example in Node. Its packages come from npm, so it runs in `make test-long`, or where they are installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from embedded.server import Triton
from tests.examples.conftest import EXAMPLES, Run, need_node
from tests.support.media import read_video
from tests.support.sample_files import FRAMES

FOLDER = EXAMPLES / "node-grpc"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages, in a copy of the folders that it needs."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm here, which installs the packages of the example")
    root = tmp_path_factory.mktemp("node")
    shutil.copytree(EXAMPLES.parent / "client" / "proto", root / "client" / "proto")
    copy = root / "examples" / "node-grpc"
    shutil.copytree(FOLDER, copy)
    if not (copy / "node_modules").is_dir():
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        installed = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
        if installed.returncode:
            pytest.skip(f"npm cannot install the packages of the example: {installed.stderr.strip()[-200:]}")
    return copy / "render.mjs"


@pytest.mark.slow
def test_the_node_client_gets_progress_and_the_video(program: Path, run: Run, triton: Triton, tmp_path: Path) -> None:
    done = run(str(program), "face.png", "speech.wav", "out.mp4", "background=White", AVATAR_SERVER=triton.grpc_address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"out.mp4: {FRAMES} frames\n"
    assert f"encode {FRAMES} of {FRAMES}" in done.stderr
    assert "stand-ins: " in done.stderr
    assert len(read_video(tmp_path / "out.mp4")) == FRAMES


@pytest.mark.slow
def test_the_node_client_says_what_is_wrong(program: Path, run: Run, triton: Triton, tmp_path: Path) -> None:
    arguments = ("face.png", "speech.wav", "out.mp4", "background=Pink")
    rejected = run(str(program), *arguments, AVATAR_SERVER=triton.grpc_address)
    assert rejected.returncode == 1
    assert rejected.stderr.splitlines()[-1].startswith("400 background: 'Pink' is not one of")
    assert not (tmp_path / "out.mp4").exists()
    nobody = run(str(program), *arguments, AVATAR_SERVER="127.0.0.1:1")
    assert (nobody.returncode, nobody.stderr.partition(":")[0]) == (1, "no Triton at 127.0.0.1")
    nowhere = run(str(program), "face.png", "speech.wav", "none/out.mp4", AVATAR_SERVER=triton.grpc_address)
    assert (nowhere.returncode, nowhere.stderr.partition(",")[0]) == (1, "ENOENT: no such file or directory")
    assert nowhere.stderr.count("\n") == 1


def test_the_packages_are_pinned_and_the_lock_names_no_host() -> None:
    versions = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    lock = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    for name, version in versions.items():
        assert version[0].isdigit()
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in each for path, each in lock.items() if path)
    assert "http" not in json.dumps([each.get("resolved", "") for each in lock.values()])


def test_the_node_client_parses() -> None:
    need_node()
    checked = subprocess.run(["node", "--check", str(FOLDER / "render.mjs")], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
