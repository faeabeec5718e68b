"""The second copy of a generator, which only `live` calls: where it is served, and which version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.build import live_networks, versions
from export.build.repository import BuildOptions
from export.build.versions import Version
from export.variants import Profile
from lipsync.tensors import LIVE_NETWORKS, S3FD, WAV2LIP, WAV2LIP_GAN

LIVE = LIVE_NETWORKS[WAV2LIP.name]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def export(repository: Path, staging: Path, content: str) -> Version:
    """Publish a version of wav2lip, and return it."""
    staged = staging / "wav2lip"
    staged.mkdir()
    (staged / "model.onnx").write_text(content)
    versions.write_record(staged, {"content": content}, {"format": "onnx"})
    versions.publish(staged, repository / "wav2lip")
    return versions.list_versions(repository / "wav2lip")[-1]


def test_the_generators_are_served_a_second_time_on_a_gpu_or_if_that_is_asked_for() -> None:
    assert BuildOptions(profile=Profile.GPU).has_live_networks
    assert not BuildOptions(profile=Profile.GPU, live_networks=False).has_live_networks
    assert not BuildOptions(profile=Profile.CPU).has_live_networks
    assert BuildOptions(profile=Profile.CPU, live_networks=True).has_live_networks
    assert set(LIVE_NETWORKS) == {WAV2LIP.name, WAV2LIP_GAN.name}


def test_it_has_the_files_of_its_generators_newest_version_and_they_take_no_space(
    repository: Path, staging: Path
) -> None:
    newest = export(repository, staging, "first")
    served = live_networks.follow(LIVE, newest, repository, staging)
    assert served.folder == repository / "wav2lip_live" / "1"
    assert served.export == newest.export
    assert (served.folder / "model.onnx").samefile(newest.folder / "model.onnx")


def test_it_follows_a_new_export_and_is_left_alone_otherwise(repository: Path, staging: Path) -> None:
    first = export(repository, staging, "first")
    live_networks.follow(LIVE, first, repository, staging)
    assert live_networks.follow(LIVE, first, repository, staging).number == 1
    second = export(repository, staging, "second")
    served = live_networks.follow(LIVE, second, repository, staging)
    assert (served.number, (served.folder / "model.onnx").read_text()) == (2, "second")


def test_a_damaged_copy_is_replaced(repository: Path, staging: Path) -> None:
    newest = export(repository, staging, "first")
    served = live_networks.follow(LIVE, newest, repository, staging)
    record = served.folder / versions.RECORD_FILE
    record.unlink()  # a link: the generator's own record stays
    record.write_text(json.dumps({**newest.record, "files": {"model.onnx": "0" * 64}}))
    assert live_networks.follow(LIVE, newest, repository, staging).number == 2


def test_it_is_removed_when_it_is_no_longer_wanted(repository: Path, staging: Path) -> None:
    newest = export(repository, staging, "first")
    live_networks.follow(LIVE, newest, repository, staging)
    assert live_networks.remove(WAV2LIP, repository, staging)
    assert [path.name for path in repository.iterdir()] == ["wav2lip"]
    assert (newest.folder / "model.onnx").read_text() == "first"
    assert not live_networks.remove(WAV2LIP, repository, staging)
    assert not live_networks.remove(S3FD, repository, staging)
