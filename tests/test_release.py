"""All packages have one version, and a release needs a tag and notes for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import avatar_client
import lipsync
from scripts.release_notes import PACKAGES, notes, section, version_of

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n### Added\n\n- A thing.\n\n## [1.2.2]\n\n- Old.\n"
)


def checkout(folder: Path, **versions: str) -> Path:
    """Write packages of version 1.2.3, or another one by their names."""
    for package in PACKAGES:
        version = versions.get(Path(package).name, "1.2.3")
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f'"""A package."""\n\n__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    return folder


def test_service_and_client_have_one_version() -> None:
    assert lipsync.__version__ == avatar_client.__version__


@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_is_that_of_the_service_and_can_be_read_without_an_import(package: str) -> None:
    assert version_of(ROOT / package / "__init__.py") == lipsync.__version__


def test_the_changelog_has_a_section_for_the_next_release() -> None:
    assert section((ROOT / "CHANGELOG.md").read_text(), "Unreleased")


def test_notes_are_the_section_of_the_version(tmp_path: Path) -> None:
    assert notes("v1.2.3", checkout(tmp_path)) == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize("tag", ["v1.2.2", "1.2.3", "v1.2.3.1", ""])
def test_a_tag_that_is_not_the_version_releases_nothing(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ValueError, match=r"is not the version: lipsync has 1\.2\.3"):
        notes(tag, checkout(tmp_path))


@pytest.mark.parametrize("package", ["avatar_client", "avatar_livekit", "avatar_pipecat"])
def test_a_package_of_another_version_is_not_released(tmp_path: Path, package: str) -> None:
    with pytest.raises(ValueError, match=rf"{package} has 1\.2\.2"):
        notes("v1.2.3", checkout(tmp_path, **{package: "1.2.2"}))


@pytest.mark.parametrize("version", ["1.2", "Unreleased", "1.2.30"])
def test_a_version_without_notes_is_not_released(version: str) -> None:
    with pytest.raises(ValueError, match="has no section"):
        section(CHANGELOG, version)


def test_the_command_prints_the_error() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "release_notes.py"), "v99.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("release_notes: the tag v99.0.0 is not the version")
    assert not done.stdout
