from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.build import listing, versions
from export.errors import ExportError

INPUTS = {"checkpoint": {"net.pth": "1" * 64}, "candidates": ["onnx fp32"]}
OUTCOME = {"checkpoint": "net.pth", "checkpoint_sha256": "1" * 64, "format": "onnx", "precision": "fp32"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "net"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text('name: "net"\n')
    return folder


def staged(folder: Path, content: str, seed: object = 0) -> Path:
    """Return a filled folder with its record, ready to be published."""
    target = folder / f"staged-{content}"
    target.mkdir()
    (target / "model.onnx").write_text(content)
    versions.write_record(target, INPUTS | {"seed": seed}, OUTCOME | {"weights": "real"})
    return target


def test_each_export_becomes_the_next_version(model: Path, tmp_path: Path) -> None:
    for i in range(1, 12):
        assert versions.publish(staged(tmp_path, str(i), i), model) == model / str(i)
    assert [version.number for version in versions.list_versions(model)] == list(range(1, 12))
    assert not list(tmp_path.glob("staged-*"))


def test_folders_that_triton_does_not_accept_as_versions_do_not_count(model: Path, tmp_path: Path) -> None:
    for name in ("0", "01", "2x", ".3"):
        (model / name).mkdir()
    assert versions.publish(staged(tmp_path, "a"), model).name == "1"


def test_a_directory_without_a_record_keeps_its_number_and_its_content(model: Path, tmp_path: Path) -> None:
    foreign = model / "7" / "model.onnx"
    foreign.parent.mkdir()
    foreign.write_text("other")
    assert versions.publish(staged(tmp_path, "a"), model).name == "8"
    versions.publish(staged(tmp_path, "b"), model)
    assert [gone.number for gone in versions.prune(model, 0, tmp_path)] == [8]
    assert foreign.read_text() == "other"


def test_the_name_of_an_export_depends_on_all_its_inputs() -> None:
    name = versions.export_name(INPUTS)
    assert name == versions.export_name(dict(reversed(INPUTS.items())))
    assert len({name, versions.export_name(INPUTS | {"candidates": ["onnx int8"]}), versions.export_name({})}) == 3


def test_a_damaged_version_is_not_intact(model: Path, tmp_path: Path) -> None:
    versions.publish(staged(tmp_path, "a"), model)
    (version,) = versions.list_versions(model)
    assert version.is_intact()
    (version.folder / "model.onnx").write_text("b")
    assert not version.is_intact()
    (version.folder / "model.onnx").unlink()
    assert not version.is_intact()
    assert "DAMAGED" in listing.table(model.parent)


def test_an_older_export_is_published_again_without_copying_its_files(model: Path, tmp_path: Path) -> None:
    old = versions.publish(staged(tmp_path, "a"), model)
    versions.publish(staged(tmp_path, "b", 1), model)
    versions.link(versions.list_versions(model)[0], tmp_path / "again")
    again = versions.publish(tmp_path / "again", model)
    assert again.name == "3"
    assert (again / "model.onnx").samefile(old / "model.onnx")
    assert versions.list_versions(model)[-1].export == versions.list_versions(model)[0].export


@pytest.mark.parametrize(("keep", "left"), [(0, [4]), (1, [3, 4]), (9, [1, 2, 3, 4])])
def test_the_requested_number_of_older_versions_is_kept(
    model: Path, tmp_path: Path, keep: int, left: list[int]
) -> None:
    for i in range(4):
        versions.publish(staged(tmp_path, str(i), i), model)
    removed = [version.number for version in versions.prune(model, keep, tmp_path)]
    assert sorted(removed + left) == [1, 2, 3, 4]
    assert [version.number for version in versions.list_versions(model)] == left


def test_a_directory_with_an_invalid_record_is_not_a_version(model: Path) -> None:
    for number, text in enumerate(("{", "[]", ""), start=1):
        (model / str(number)).mkdir()
        (model / str(number) / versions.RECORD_FILE).write_text(text)
    assert versions.list_versions(model) == []


def test_the_list_describes_each_version(model: Path, tmp_path: Path) -> None:
    for i in range(2):
        versions.publish(staged(tmp_path, str(i), i), model)
    (model.parent / "plain").mkdir()
    (model.parent / "plain" / "config.pbtxt").write_text('name: "plain"\n')
    text, others = listing.table(model.parent, wide=True).split("\n\n")
    head, _, *rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert head == list(listing.WIDE)
    assert others == "Models without a network: plain"
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    assert [cell["model"] for cell in cells] == ["net", "net"]
    assert [cell["version"] for cell in cells] == ["1", "2 *"]
    record = json.loads((model / "2" / versions.RECORD_FILE).read_text())
    assert {**cells[1], "created": "", "MB": ""} == {
        "model": "net",
        "version": "2 *",
        "jobs": "100%",
        "checkpoint": "net.pth",
        "sha256": "1" * 12,
        "format": "onnx fp32",
        "weights": "real",
        "score": "",
        "ms": "",
        "MB": "",
        "export": record["export"],
        "created": "",
    }


def test_listing_a_folder_without_models_fails(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no models here.*python -m export models"):
        listing.table(tmp_path)
