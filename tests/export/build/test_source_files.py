"""The code whose hash is a part of an export's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.build.exported_models import EXPORTED_MODELS
from export.build.source_files import ROOT, imported_files

TORCH, _, _, TENSORFLOW = EXPORTED_MODELS


def names(modules: tuple[str, ...]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in imported_files(modules)}


def test_the_arithmetic_that_decides_the_calibration_belongs_to_an_export() -> None:
    assert {
        "lipsync/face_crop.py",
        "lipsync/face_detection.py",
        "lipsync/mel.py",
        "lipsync/mel_windows.py",
        "lipsync/tensors.py",
        "export/checkpoints/load.py",
        "export/formats/onnx_export.py",
        "export/formats/onnx_model.py",
        "export/formats/openvino_ir.py",
        "export/formats/quantize.py",
        "export/formats/torchscript.py",
        "export/networks/inference.py",
        "export/networks/s3fd.py",
        "export/networks/wav2lip.py",
        "export/validation/samples.py",
    } <= names(TORCH.modules)


def test_the_segmentation_has_its_own_code() -> None:
    files = names(TENSORFLOW.modules)
    assert {"export/formats/tensorflow.py", "export/formats/onnx_model.py", "lipsync/tensors.py"} <= files
    assert "export/validation/samples.py" not in files


def test_code_that_only_serves_does_not_belong_to_an_export() -> None:
    for exported in EXPORTED_MODELS:
        files = names(exported.modules)
        assert not {name for name in files if name.startswith(("lipsync/triton/", "export/commands/"))}
        assert "lipsync/blend.py" not in files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose `export.a` imports other modules in every way."""
    sources = {
        "export/__init__.py": "",
        "export/a.py": "import lipsync.x\nfrom .b import name\nfrom lipsync import y, constant\nimport json\n",
        "export/b.py": "from . import c\ndef late():\n    from .deep import d\n",
        "export/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .unused import Name\n",
        "export/unused.py": "",
        "export/deep/__init__.py": "",
        "export/deep/d.py": "from ..b import name\n",  # a cycle
        "lipsync/__init__.py": "constant = 1\n",
        "lipsync/x.py": "",
        "lipsync/y.py": "",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_followed_through_every_module(project: Path) -> None:
    files = {path.relative_to(project).as_posix() for path in imported_files(("export.a",), project)}
    assert files == {
        "export/a.py",
        "export/b.py",
        "export/c.py",
        "export/deep/d.py",
        "lipsync/__init__.py",
        "lipsync/x.py",
        "lipsync/y.py",
    }
