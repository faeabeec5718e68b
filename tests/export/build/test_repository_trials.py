"""A build with a trial puts new exports next to the active ones, and a later build leaves both as they are."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from export.build import trials, versions
from export.build.release import Release
from export.build.repository import BuildOptions, build_repository
from export.errors import ExportError
from export.triton_config import model_config
from export.variants import Format, Precision

ONNX = BuildOptions(format=Format.ONNX, precision=Precision.FP32, timing=False)  # as the session's repositories
OTHER = "f" * 16  # the name of an export that another set of weights would give


@pytest.fixture
def exported(repository: Path, tmp_path: Path) -> Path:
    """A copy of the session's repository, whose `wav2lip` is an older export: another one is active."""
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=link_networks)
    publish_other_weights(copy)
    return copy


def link_networks(source: str, target: str) -> None:
    if source.endswith(".onnx"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def publish_other_weights(repository: Path) -> None:
    """Publish the export of `wav2lip` once more under another name, as if it were of other weights."""
    model = repository / "wav2lip"
    (version,) = versions.list_versions(model)
    staged = repository.parent / "other"
    versions.link(version, staged)
    record = json.loads((staged / versions.RECORD_FILE).read_text())
    (staged / versions.RECORD_FILE).unlink()  # a hard link to that of the first version
    (staged / versions.RECORD_FILE).write_text(json.dumps({**record, "export": OTHER}))
    versions.publish(staged, model)
    release = Release.read(repository)
    replace(release, active={**release.active, "wav2lip": OTHER}).write(repository)


@pytest.fixture
def lines() -> list[str]:
    return []


def of_wav2lip(lines: list[str]) -> str:
    return " ".join(line for line in lines if line.startswith("wav2lip:"))


def exports(repository: Path) -> list[str]:
    return [version.export for version in versions.list_versions(repository / "wav2lip")]


def test_a_trial_survives_further_builds_and_a_rollback_does_too(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    (new, _) = exports(exported)
    build_repository(stand_in_weights, exported, lines.append, replace(ONNX, trial=0.1))
    assert lines[-2] == "wav2lip: tried with 10% of the jobs"
    release = Release.read(exported)
    assert (release.trial, release.share, release.active["wav2lip"]) == ({"wav2lip": new}, 0.1, OTHER)
    assert exports(exported)[-2:] == [new, OTHER]

    for options, share in ((ONNX, 0.1), (replace(ONNX, trial=0.3), 0.3)):
        lines.clear()
        build_repository(stand_in_weights, exported, lines.append, options)
        assert "wav2lip: tried, " in of_wav2lip(lines)
        assert (Release.read(exported).trial, Release.read(exported).share) == ({"wav2lip": new}, share)
        assert exports(exported)[-2:] == [new, OTHER]

    trials.rollback(exported, lines.append)
    lines.clear()
    build_repository(stand_in_weights, exported, lines.append, ONNX)
    assert "was rolled back and stays so" in of_wav2lip(lines)
    assert Release.read(exported).active["wav2lip"] == exports(exported)[-1] == OTHER

    build_repository(stand_in_weights, exported, lines.append, replace(ONNX, trial=1.0))
    trials.activate(exported, lines.append)
    lines.clear()
    build_repository(stand_in_weights, exported, lines.append, ONNX)
    assert "up to date" in of_wav2lip(lines)
    assert (Release.read(exported).active["wav2lip"], Release.read(exported).previous["wav2lip"]) == (new, OTHER)
    assert Release.read(exported).withdrawn == ()


def test_without_a_trial_a_new_export_is_active_at_once_and_a_rollback_returns(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    (new, _) = exports(exported)
    build_repository(stand_in_weights, exported, lines.append, ONNX)
    assert "reusing an older export" in of_wav2lip(lines)
    assert Release.read(exported).previous["wav2lip"] == OTHER
    trials.rollback(exported, lines.append)
    assert exports(exported)[-1] == OTHER
    assert Release.read(exported).withdrawn == (new,)


def test_a_trial_without_anything_new_or_anything_active_is_answered_with_that(
    repository: Path, stand_in_weights: Path, tmp_path: Path, lines: list[str]
) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=link_networks)
    build_repository(stand_in_weights, copy, lines.append, replace(ONNX, trial=0.1))
    assert "nothing to try: every network is up to date" in lines
    assert Release.read(copy).trial == {}
    with pytest.raises(ExportError, match="nothing is active here yet"):
        build_repository(stand_in_weights, tmp_path / "empty", lines.append, replace(ONNX, trial=0.1))


def test_another_export_during_a_trial_is_rejected_before_anything_is_exported(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    build_repository(stand_in_weights, exported, lines.append, replace(ONNX, trial=0.1))
    before = exports(exported)
    release = Release.read(exported)
    replace(release, active={**release.active, "s3fd": OTHER}).write(exported)  # so that of these weights is new
    with pytest.raises(ExportError, match="a trial is running here"):
        build_repository(stand_in_weights, exported, lines.append, ONNX)
    assert exports(exported) == before


def test_the_projects_own_repository_has_committed_configs_and_so_no_trial(
    stand_in_weights: Path, lines: list[str]
) -> None:
    with pytest.raises(ExportError, match="nothing can be tried"):
        build_repository(stand_in_weights, model_config.committed(), lines.append, replace(ONNX, trial=0.1))
