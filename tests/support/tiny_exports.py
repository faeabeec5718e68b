"""The tiny repository, with the records that the exporter writes: versions of it can be tried and rolled back."""

from __future__ import annotations

import shutil
from pathlib import Path

from export.build import served_configs, trials, versions
from export.build.release import EXPORTED, Release, newest_exports
from export.build.staging import staging_folder
from export.variants import Profile
from lipsync.tensors import Model
from tests.support import tiny_repository

OUTCOME = {
    "checkpoint": "tiny.pth",
    "checkpoint_sha256": "7" * 64,
    "weights": "stand-in",
    "format": "onnx",
    "precision": "fp32",
}


def write(repository: Path) -> None:
    """Write the repository into an empty or missing folder."""
    tiny_repository.write(repository)
    for model in EXPORTED:
        folder = repository / model.name / "1"
        versions.write_record(folder, {"model": model.name, "seed": 1}, OUTCOME)
        (version,) = versions.list_versions(repository / model.name)
        served_configs.write_network(model, version, repository, Profile.CPU)
    Release(Profile.CPU, newest_exports(repository)).write(repository)


def stage(model: Model, graph: tiny_repository.Graph, folder: Path, *, seed: int, format: str = "onnx") -> Path:
    """Return a folder with another export of a network, ready to be published."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    graph.save(model, folder / "model.onnx")
    versions.write_record(folder, {"model": model.name, "seed": seed}, {**OUTCOME, "format": format})
    return folder


def begin_trial(repository: Path, staged: dict[str, Path], share: float) -> None:
    """Try exports next to the active ones."""
    with staging_folder(repository) as staging:
        trials.begin(repository, Release.read(repository), staged, share, staging)
