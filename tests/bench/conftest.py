"""Fixtures of the benchmark tests."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.build.versions import RECORD_FILE
from lipsync.tensors import S3FD, WAV2LIP


@pytest.fixture(autouse=True)
def _denormals_are_numbers_again() -> Iterator[None]:
    """Undo what networks do to their thread: the charts need denormals that are not zero."""
    _keep_denormals()
    yield
    _keep_denormals()


def _keep_denormals() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def tiny_exports(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny networks as a folder of exports: the benchmarks load the newest version that has a record."""
    folder = tmp_path_factory.mktemp("exports")
    for model in (S3FD, WAV2LIP):
        version = folder / model.name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(tiny_repository / model.name / "1" / "model.onnx")
        (version / RECORD_FILE).write_text(json.dumps({"format": "onnx", "precision": "fp32"}))
    return folder
