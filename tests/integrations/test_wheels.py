"""The wheels of both adapters: their files, and requirements that the tested versions of the libraries satisfy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import avatar_client
from tests.support.virtualenvs import needed_by

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"  # as pip does
LIBRARY = {"livekit": "livekit-agents", "pipecat": "pipecat-ai"}


@pytest.mark.parametrize("name", LIBRARY)
def test_the_wheel_has_the_package_and_requires_what_was_tested(name: str, tmp_path: Path) -> None:
    source = tmp_path / name  # a build leaves folders next to the sources
    shutil.copytree(INTEGRATIONS / name, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, tmp_path], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"talking_avatar_{name}-{avatar_client.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {file for file in archive.namelist() if ".dist-info/" not in file}
        (metadata,) = (file for file in archive.namelist() if file.endswith(".dist-info/METADATA"))
        needed = [Requirement(each) for each in needed_by(archive.read(metadata).decode(), "")]
    package = INTEGRATIONS / name / f"avatar_{name}"
    assert files == {f"{package.name}/{file.name}" for file in package.glob("*") if file.is_file()}
    assert f"{package.name}/py.typed" in files
    assert {each.name for each in needed} == {LIBRARY[name], "numpy", "talking-avatar-client"}
    for each in needed:
        assert each.specifier.contains(version(each.name)), each
