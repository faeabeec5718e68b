"""New exports are tried next to the active ones, activated, and rolled back. No Triton runs here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.build import listing, trials, versions
from export.build import repository as repositories
from export.build.release import RELEASE_FILE, Release
from export.cli import main
from export.errors import ExportError
from export.store.pull import pull
from export.store.push import push
from lipsync.tensors import WAV2LIP
from tests.support import tiny_exports, tiny_repository


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trials") / "repository"
    tiny_exports.write(folder)
    return folder


@pytest.fixture
def repository(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "repository")


def staged(tmp_path: Path, seed: int = 2, format: str = "onnx") -> Path:
    graph = tiny_repository._generator(depth=0.4)
    return tiny_exports.stage(WAV2LIP, graph, tmp_path / f"staged-{seed}", seed=seed, format=format)


def quiet(_: str) -> None:
    pass


def begin(repository: Path, share: float = 0.25, seed: int = 2) -> str:
    """Try a new export of `wav2lip`, and return its name."""
    folder = staged(repository.parent, seed)
    export = versions.read_version(folder).export
    tiny_exports.begin_trial(repository, {"wav2lip": folder}, share)
    return export


def config(repository: Path, name: str) -> pb.ModelConfig:
    return text_format.Parse((repository / name / "config.pbtxt").read_text("utf-8"), pb.ModelConfig())


def parameters(repository: Path, name: str) -> dict[str, str]:
    return {key: value.string_value for key, value in config(repository, name).parameters.items()}


def served(repository: Path) -> list[int]:
    return list(config(repository, "wav2lip").version_policy.specific.versions)


def exports(repository: Path) -> list[str]:
    return [version.export for version in versions.list_versions(repository / "wav2lip")]


def test_what_is_tried_has_the_lower_number_so_that_calls_without_a_version_get_what_is_active(
    repository: Path,
) -> None:
    (old,) = exports(repository)
    new = begin(repository)
    assert exports(repository) == [new, old]
    assert [version.number for version in versions.list_versions(repository / "wav2lip")] == [2, 3]
    assert served(repository) == [2, 3]
    have = parameters(repository, "wav2lip")
    assert (have["export"], have["trial_export"], have["trial_version"]) == (old, new, "2")
    assert parameters(repository, "detect_faces")["trial_share"] == "0.25"
    assert not config(repository, "s3fd").HasField("version_policy")


def test_the_share_can_be_changed_without_touching_the_networks(repository: Path) -> None:
    begin(repository)
    before = (repository / "wav2lip" / "config.pbtxt").stat().st_mtime_ns
    assert main(["trial", "--repository", str(repository), "--share", "0.5"]) == 0
    assert parameters(repository, "detect_faces")["trial_share"] == "0.5"
    assert (repository / "wav2lip" / "config.pbtxt").stat().st_mtime_ns == before


def test_an_activation_makes_it_the_newest_and_keeps_the_one_before(repository: Path) -> None:
    (old,) = exports(repository)
    new = begin(repository)
    assert main(["activate", "--repository", str(repository)]) == 0
    assert exports(repository) == [old, new]
    assert served(repository) == []
    assert parameters(repository, "wav2lip")["export"] == new
    assert "trial_share" not in parameters(repository, "detect_faces")


def test_a_rollback_ends_the_trial(repository: Path) -> None:
    (old,) = exports(repository)
    new = begin(repository)
    assert main(["rollback", "--repository", str(repository)]) == 0
    assert served(repository) == []
    assert parameters(repository, "wav2lip")["export"] == old
    assert "trial_version" not in parameters(repository, "wav2lip")
    assert "trial_share" not in parameters(repository, "detect_faces")
    assert Release.read(repository).withdrawn == (new,)


def test_a_rollback_returns_to_what_was_active_before_and_a_second_one_undoes_it(repository: Path) -> None:
    (old,) = exports(repository)
    new = begin(repository)
    trials.activate(repository, quiet)
    for expected in (old, new, old):
        trials.rollback(repository, quiet)
        assert exports(repository)[-1] == parameters(repository, "wav2lip")["export"] == expected
        assert Release.read(repository).active["wav2lip"] == expected
    assert len(exports(repository)) == 2


def test_what_cannot_be_done_changes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, message in (
        (("activate",), "no trial is running"),
        (("rollback",), "no earlier release is known"),
        (("trial", "--share", "0.5"), "no trial is running"),
    ):
        assert main([*command, "--repository", str(repository)]) == 1
        assert message in capsys.readouterr().err
    begin(repository)
    trials.activate(repository, quiet)
    before = versions.list_versions(repository / "wav2lip")[0].folder
    (before / "model.onnx").unlink()
    with pytest.raises(ExportError, match="gone or damaged"):
        trials.rollback(repository, quiet)
    assert Release.read(repository).previous["wav2lip"] == versions.read_version(before).export


def test_versions_of_two_formats_cannot_be_served_side_by_side(repository: Path, tmp_path: Path) -> None:
    (active,) = versions.list_versions(repository / "wav2lip")
    with pytest.raises(ExportError, match=r"in one format; use --format onnx"):
        trials.check_format(WAV2LIP, active, versions.read_version(staged(tmp_path, format="openvino")))
    with pytest.raises(ExportError, match="a plan is built after"):
        trials.check_format(WAV2LIP, active, versions.read_version(staged(tmp_path, format="tensorrt")))


def test_pruning_keeps_what_is_tried(repository: Path) -> None:
    new = begin(repository)
    repositories.prune(repository, 0, quiet)
    assert new in exports(repository)
    trials.rollback(repository, quiet)
    repositories.prune(repository, 0, quiet)
    assert new not in exports(repository)


def test_the_list_shows_the_share_of_each_version(repository: Path) -> None:
    begin(repository, share=0.1)
    text, _, _ = listing.table(repository).partition("\n\n")
    head, _, *rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    cells = [dict(zip(head, row, strict=True)) for row in rows]
    have = [(cell["version"], cell["jobs"]) for cell in cells if cell["model"] == "wav2lip"]
    assert have == [("2", "10%"), ("3 *", "90%")]


def test_a_trial_is_pushed_and_pulled_with_its_share(repository: Path, tmp_path: Path) -> None:
    begin(repository)
    push(repository, str(tmp_path / "store"), quiet)
    pull(str(tmp_path / "store"), tmp_path / "node" / "repository", quiet)
    assert Release.read(tmp_path / "node" / "repository") == Release.read(repository)
    assert served(tmp_path / "node" / "repository") == [2, 3]


def test_a_damaged_record_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / RELEASE_FILE).write_text("[]")
    assert main(["rollback", "--repository", str(repository)]) == 1
    assert "damaged; remove it" in capsys.readouterr().err
