"""A model repository of a few small files, in the form that the exporter gives it; nothing can be served from it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def write(repository: Path, weights: bytes = b"weights") -> Path:
    """Write the repository, and return it."""
    network = repository / "wav2lip" / "1"
    network.mkdir(parents=True)
    (network / "model.onnx").write_bytes(weights)
    (network / "report.json").write_text(json.dumps({"results": [{"score": 61.0}]}))
    record = {
        "export": hashlib.sha256(weights).hexdigest()[:16],
        "format": "onnx",
        "precision": "fp32",
        "weights": "stand-in",
        "checkpoint_sha256": "5" * 64,
        "created": "2026-11-28T08:00:00+00:00",
        "files": {},
    }
    (network / "export.json").write_text(json.dumps(record))
    (repository / "wav2lip" / "config.pbtxt").write_text('name: "wav2lip"\n')
    (repository / "avatar" / "1").mkdir(parents=True)
    (repository / "avatar" / "1" / "model.py").write_text("class TritonPythonModel: ...\n")
    (repository / "avatar" / "config.pbtxt").write_text('name: "avatar"\n')
    (repository / "detect_faces" / "1").mkdir(parents=True)
    (repository / "detect_faces" / "config.pbtxt").write_text('name: "detect_faces"\n')
    return repository


def content(repository: Path) -> dict[str, bytes | None]:
    """Return every file with its content, and every folder with None, but for the record of a pull."""
    return {
        str(path.relative_to(repository)): path.read_bytes() if path.is_file() else None
        for path in repository.rglob("*")
        if path.name != "pulled.json"
    }
