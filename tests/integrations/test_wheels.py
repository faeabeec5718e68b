"""The wheels of both adapters: their files, and requirements that the tested versions of the libraries satisfy."""

from __future__ import annotations

import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import avatar_client
from tests.support.virtualenvs import build_wheel, copy_of_sources, needed_by

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
LIBRARY = {"livekit": "livekit-agents", "pipecat": "pipecat-ai"}


@pytest.mark.parametrize("name", LIBRARY)
def test_the_wheel_has_the_package_and_requires_what_was_tested(name: str, tmp_path: Path) -> None:
    wheel = build_wheel(copy_of_sources(INTEGRATIONS / name, tmp_path), tmp_path / "wheel")
    assert wheel.name.startswith(f"talking_avatar_{name}-{avatar_client.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        files = {file for file in archive.namelist() if ".dist-info/" not in file}
    needed = [Requirement(each) for each in needed_by(wheel)]
    package = INTEGRATIONS / name / f"avatar_{name}"
    assert files == {f"{package.name}/{file.name}" for file in package.glob("*") if file.is_file()}
    assert f"{package.name}/py.typed" in files
    assert {each.name for each in needed} == {LIBRARY[name], "numpy", "talking-avatar-client"}
    for each in needed:
        assert each.specifier.contains(version(each.name)), each
