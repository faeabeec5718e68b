"""The version directories of a model: what they hold, and how the next one comes in.

A version directory is filled beside the repository and put in place by one rename, so a Triton that polls the
repository sees all of it or nothing. Its number is one more than the highest there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..checkpoints.load import sha256
from ..errors import ExportError

RECORD_FILE = "export.json"  # in each version directory: what it was made from
REPORT_FILE = "report.json"  # beside it: how far it is from its network, and how fast


@dataclass(frozen=True)
class Version:
    """One version directory that an export filled.

    Attributes:
        folder: the directory; its name is the number.
        record: the content of its `export.json`.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Triton's version number."""
        return int(self.folder.name)

    @property
    def export(self) -> str:
        """The export's name: the hash of everything that went into it."""
        return str(self.record.get("export", ""))

    def is_intact(self) -> bool:
        """Whether every recorded file is there and unchanged."""
        try:
            return all(sha256(self.folder / name) == value for name, value in self.record["files"].items())
        except (OSError, KeyError, AttributeError, TypeError):
            return False


def export_name(inputs: Mapping[str, Any]) -> str:
    """The name of an export: a hash of its inputs, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def list_versions(model: Path) -> list[Version]:
    """The exported versions in a model's folder, oldest first; directories without a record are none."""
    found = []
    for folder in _numbered(model):
        try:
            record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            found.append(Version(folder, record))
    return found


def write_record(folder: Path, inputs: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """Write the record of the export whose files lie in `folder`.

    Args:
        folder: where all its files are, the report included.
        inputs: everything that decides what the export is.
        outcome: what else is worth knowing of it.
    """
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"export": export_name(inputs), "created": created, **outcome, "inputs": inputs, "files": files}
    (folder / RECORD_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def publish(staged: Path, model: Path) -> Path:
    """Put a filled folder in place as the model's next version, by one rename; gives back where it is."""
    model.mkdir(parents=True, exist_ok=True)
    numbers = [int(folder.name) for folder in _numbered(model)]
    target = model / str(max(numbers, default=0) + 1)
    _make_durable(staged)
    staged.rename(target)
    return target


def link(version: Version, staged: Path) -> None:
    """A copy of a version's directory that shares its files, for an older export that is wanted again."""
    shutil.copytree(version.folder, staged, copy_function=os.link)


def prune(model: Path, keep: int, staging: Path) -> list[Version]:
    """Remove all but the newest version and `keep` older ones; gives back what is gone.

    Each leaves its place by one rename too. Directories that no export filled stay.
    """
    versions = list_versions(model)
    gone = versions[: max(0, len(versions) - 1 - keep)]
    for version in gone:
        away = staging / f"{model.name}-{version.number}-pruned"
        version.folder.rename(away)
        shutil.rmtree(away)
    return gone


def _numbered(model: Path) -> list[Path]:
    if not model.is_dir():
        return []
    # as Triton counts: digits only, no leading zero
    folders = [path for path in model.iterdir() if path.name.isdecimal() and path.name[0] != "0" and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))


def _make_durable(folder: Path) -> None:
    """Bring the files to disk before they get their name, so that a power cut leaves no empty version."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:  # a full disk shows here at the latest
            raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            os.close(descriptor)
