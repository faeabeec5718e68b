from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.build import listing, versions
from export.build import repository as repositories
from export.build.exported_models import EXPORTED_MODELS
from export.build.repository import BuildOptions
from export.build.repository import build_repository as build_with
from export.errors import ExportError
from export.triton_config import model_config
from export.validation.sample_media import Media
from export.variants import Format, Precision, Profile
from lipsync.tensors import MODELS
from tests.support import quick_judge
from tests.support.golden_weights import write_golden_weights
from tests.support.quick_judge import few_samples, small_media

EXPORTED_NAMES = {net.model.name for net in EXPORTED_MODELS}
ONNX = BuildOptions(format=Format.ONNX, precision=Precision.FP32, timing=False)  # as the session's repositories


def build(weights: Path, repository: Path, on_progress: Callable[[str], None], options: BuildOptions = ONNX) -> None:
    build_with(weights, repository, on_progress, options)


@pytest.fixture
def exported(repository: Path, tmp_path: Path) -> Path:
    """A copy of the session's repository, which a test may change."""
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=link_nets)
    return copy


@pytest.fixture
def copied_segmentation(repository: Path) -> Iterator[None]:
    """Exports of `segmentation` are a copy of the session's, which the real exporter wrote."""
    with quick_judge.copied_segmentation(repository / "segmentation" / "1" / "model.onnx"):
        yield


def link_nets(source: str, target: str) -> None:
    """Copy a file. Networks (150 MB) are linked, so a test must unlink one before it changes it in the copy."""
    if source.endswith(".onnx"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture
def lines() -> list[str]:
    return []


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def config(repository: Path, name: str) -> pb.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text("utf-8"), pb.ModelConfig())


def test_a_repository_has_everything_that_triton_loads(repository: Path) -> None:
    for model in MODELS:
        assert config(repository, model.name).name == model.name
        version = repository / model.name / "1"
        if model.name in EXPORTED_NAMES:
            assert (version / "model.onnx").stat().st_size > 0
        elif config(repository, model.name).backend == "python":
            assert (version / "model.py").read_bytes() == (
                model_config.committed() / model.name / "1" / "model.py"
            ).read_bytes()
        else:
            assert version.is_dir()
    assert not list(repository.rglob("*.part"))


def test_the_config_of_each_network_names_its_checkpoint(repository: Path) -> None:
    for model in MODELS:
        have = config(repository, model.name)
        if model.name in EXPORTED_NAMES:
            assert have.parameters["checkpoint"].string_value == "stand-in"
            assert len(have.parameters["checkpoint_sha256"].string_value) == 64
            (version,) = versions.list_versions(repository / model.name)
            assert have.parameters["export"].string_value == version.export
            assert have.parameters["precision"].string_value == "fp32"
            for name in set(have.parameters) - {"api_version"}:
                del have.parameters[name]
        assert have == model_config.config(model)


def test_a_second_build_changes_nothing_and_reports_that(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    before = snapshot(exported)
    build(stand_in_weights, exported, lines.append)
    assert snapshot(exported) == before
    assert {line.split(":")[0] for line in lines if "up to date" in line} == EXPORTED_NAMES


def test_stand_ins_are_reported_with_a_warning(stand_in_weights: Path, exported: Path, lines: list[str]) -> None:
    build(stand_in_weights, exported, lines.append)
    assert "STAND-INS, NOT THE PUBLISHED WEIGHTS" in lines[0]
    assert str(stand_in_weights) in lines[0]


@pytest.mark.usefixtures("copied_segmentation")
def test_only_damaged_or_outdated_files_are_written_again(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    expected = config(exported, "s3fd")
    damaged = exported / "segmentation" / "1" / "model.onnx"
    damaged.unlink()
    damaged.write_bytes(b"half a fil")
    (exported / "face_nms" / "1" / "model.py").write_text("# an older version\n")
    (exported / "s3fd" / "config.pbtxt").write_text('name: "s3fd"\n')
    (exported / "lipsync" / "config.pbtxt").unlink()
    shutil.rmtree(exported / "lipsync" / "1")
    before = snapshot(exported)
    build(stand_in_weights, exported, lines.append)
    assert config(exported, "s3fd") == expected
    assert (exported / "segmentation" / "2" / "model.onnx").stat().st_size > 100
    after = snapshot(exported)
    assert {name for name in after if before.get(name) != after[name]} == {
        "face_nms/1/model.py",
        "lipsync/config.pbtxt",
        "s3fd/config.pbtxt",
        "segmentation/2/export.json",
        "segmentation/2/model.onnx",
        "segmentation/2/report.json",
    }
    assert "segmentation: exporting from xception_pascalvoc.pb" in lines
    assert [line.split(":")[0] for line in lines if "and evaluated" in line] == ["segmentation"]


def test_models_of_other_names_are_reported_and_not_touched(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    unknown = exported / "my_model" / "config.pbtxt"
    unknown.parent.mkdir()
    unknown.write_text('name: "my_model"\n')
    build(stand_in_weights, exported, lines.append)
    assert unknown.read_text() == 'name: "my_model"\n'
    assert any(line.startswith("my_model: not one of this project's models") for line in lines)


def test_an_incomplete_set_of_weights_is_rejected_with_the_missing_names(
    stand_in_weights: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(stand_in_weights, half, copy_function=os.link)
    (half / "s3fd.pth").unlink()
    (half / "wav2lip_gan.pth").unlink()
    with pytest.raises(ExportError, match=r"half.*missing: wav2lip_gan\.pth, s3fd\.pth$"):
        build(half, tmp_path / "repository", lambda _: None)
    assert not (tmp_path / "repository").exists()


def test_real_weights_and_stand_ins_do_not_mix(stand_in_weights: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(stand_in_weights, mixed, copy_function=os.link)
    (mixed / "s3fd.pth").unlink()
    torch.save({"weight": torch.zeros(1)}, mixed / "s3fd.pth")
    with pytest.raises(ExportError, match="mixed") as caught:
        build(mixed, tmp_path / "repository", lambda _: None)
    assert "stand-in" in str(caught.value)
    assert not (tmp_path / "repository").exists()


def test_a_broken_checkpoint_keeps_the_older_export(
    stand_in_weights: Path, exported: Path, tmp_path: Path, lines: list[str]
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(stand_in_weights, weights, copy_function=os.link)
    broken = weights / "wav2lip.pth"
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[: len(content) // 2])
    before = snapshot(exported)
    with pytest.raises(ExportError, match=r"wav2lip\.pth"):
        build(weights, exported, lines.append)
    assert snapshot(exported) == before


def test_a_second_build_into_one_repository_waits_for_the_first(stand_in_weights: Path, exported: Path) -> None:
    folder = os.open(exported, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    waits, output = threading.Event(), list[str]()

    def on_progress(line: str) -> None:
        output.append(line)
        if "waiting" in line:
            waits.set()

    other = threading.Thread(target=build, args=(stand_in_weights, exported, on_progress))
    other.start()
    try:
        assert waits.wait(60)
        assert not any("up to date" in line for line in output)
    finally:
        os.close(folder)
        other.join(60)
    assert not other.is_alive()
    assert sum("up to date" in line for line in output) == len(EXPORTED_MODELS)


def with_other_segmentation(weights: Path, folder: Path) -> Path:
    """Copy the stand-ins with another checkpoint for `segmentation`."""
    shutil.copytree(weights, folder, copy_function=os.link)
    other = folder / "xception_pascalvoc.pb"
    content = other.read_bytes()
    other.unlink()
    # parsers skip an unknown field of a protobuf message
    other.write_bytes(content + b"\xc2\x3e\x01x")
    return folder


@pytest.mark.usefixtures("copied_segmentation")
def test_a_new_export_becomes_the_next_version_and_an_older_one_is_reused(
    stand_in_weights: Path, exported: Path, tmp_path: Path, lines: list[str]
) -> None:
    weights = with_other_segmentation(stand_in_weights, tmp_path / "weights")
    build(weights, exported, lines.append)
    old, new = versions.list_versions(exported / "segmentation")
    assert (old.number, new.number) == (1, 2)
    assert config(exported, "segmentation").parameters["export"].string_value == new.export != old.export

    lines.clear()
    build(stand_in_weights, exported, lines.append)
    assert any(line.startswith("segmentation: reusing an older export") for line in lines)
    assert not any("exporting" in line for line in lines)
    newest = versions.list_versions(exported / "segmentation")[-1]
    assert (newest.number, newest.export) == (3, old.export)
    assert [version.number for version in versions.list_versions(exported / "segmentation")] == [2, 3]  # one older


@pytest.mark.usefixtures("copied_segmentation")
def test_pruning_keeps_the_requested_number_of_older_versions(
    stand_in_weights: Path, exported: Path, tmp_path: Path, lines: list[str]
) -> None:
    build(with_other_segmentation(stand_in_weights, tmp_path / "weights"), exported, lines.append)
    lines.clear()
    repositories.prune(exported, 0, lines.append)
    assert lines == ["segmentation: removed version 1, keeping 0 older"]
    assert [version.number for version in versions.list_versions(exported / "segmentation")] == [2]


def test_every_export_has_a_report(repository: Path) -> None:
    for net in EXPORTED_MODELS:
        (version,) = versions.list_versions(repository / net.model.name)
        report = json.loads((version.folder / versions.REPORT_FILE).read_text())
        assert (report["model"], report["format"], report["precision"]) == (net.model.name, "onnx", "fp32")
        assert report["evaluated_on_real_weights"] is False
        assert report["results"]
        assert all(result["passed"] for result in report["results"])
        if net.model.name != "segmentation":
            assert {result["weights"] for result in report["results"]} == {"stand-in", "seeded random"}
            assert len({result["samples"] for result in report["results"]}) == 2


def test_the_list_names_every_model_of_a_repository(repository: Path) -> None:
    text = listing.table(repository)
    for model in MODELS:
        assert model.name in text
    assert text.count("stand-in") == len(EXPORTED_MODELS)
    assert max(map(len, text.splitlines())) <= 80
    sha256 = str(versions.list_versions(repository / "s3fd")[-1].record["checkpoint_sha256"])[:12]
    assert sha256 not in text
    assert sha256 in listing.table(repository, wide=True)


def test_no_temporary_folder_remains_next_to_the_repository(
    stand_in_weights: Path, exported: Path, lines: list[str]
) -> None:
    killed = exported.parent / f".{exported.name}.abc.staging" / "wav2lip"
    killed.mkdir(parents=True)
    (killed / "model.onnx").write_bytes(b"half a fil")
    build(stand_in_weights, exported, lines.append)
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_missing_media_are_reported_before_anything_is_exported(
    stand_in_weights: Path, tmp_path: Path, lines: list[str]
) -> None:
    options = BuildOptions(media=Media((tmp_path / "face.png",), Media.shipped().speech), timing=False)
    with pytest.raises(ExportError, match=r"face\.png: no such file.*--frames"):
        build(stand_in_weights, tmp_path / "repository", lines.append, options)
    assert not (tmp_path / "repository" / "s3fd").exists()


def test_the_projects_own_repository_accepts_only_the_variant_of_its_configs(
    stand_in_weights: Path, lines: list[str]
) -> None:
    for options in (BuildOptions(), BuildOptions(profile=Profile.GPU, format=Format.ONNX, precision=Precision.FP32)):
        with pytest.raises(ExportError, match="configs here are committed and for ONNX fp32 on a CPU"):
            build(stand_in_weights, model_config.committed(), lines.append, options)


def test_a_mount_point_is_rejected(stand_in_weights: Path, lines: list[str]) -> None:
    mounted = next(Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if "/proc" in line)
    with pytest.raises(ExportError, match=r"is a mount point.*use a folder inside it"):
        build(stand_in_weights, mounted, lines.append)


@pytest.mark.slow  # half a minute; tests/export/build/test_selection.py has a report of real weights in `make test`
def test_real_weights_are_evaluated_and_the_report_records_that(tmp_path: Path) -> None:
    weights, golden_repository = tmp_path / "weights", tmp_path / "repository"
    write_golden_weights(weights)
    with few_samples():
        build(weights, golden_repository, lambda _: None, replace(ONNX, media=small_media(tmp_path / "media")))
    for name in ("s3fd", "wav2lip", "wav2lip_gan"):
        (version,) = versions.list_versions(golden_repository / name)
        report = json.loads((version.folder / versions.REPORT_FILE).read_text())
        assert report["evaluated_on_real_weights"] is True
        assert {result["weights"] for result in report["results"]} == {"real"}
