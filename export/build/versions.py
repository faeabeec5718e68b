"""The version directories of a model: list, publish, reuse and prune them.

A version directory is filled outside the repository and published by one rename, so a Triton that polls the
repository sees all of it or nothing. Its number is one more than the highest existing one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..files import sha256

RECORD_FILE = "export.json"  # in each version directory: the inputs of the export
REPORT_FILE = "report.json"  # in each version directory: accuracy and speed


@dataclass(frozen=True)
class Version:
    """One version directory that an export filled.

    Attributes:
        folder: the directory; its name is the number.
        record: the content of its `export.json`.
    """

    folder: Path
    record: Mapping[str, object]

    @property
    def number(self) -> int:
        """Return Triton's version number."""
        return int(self.folder.name)

    @property
    def export(self) -> str:
        """Return the export's name, the hash of all its inputs."""
        return str(self.record.get("export", ""))

    def is_intact(self) -> bool:
        """Return whether every recorded file exists and is unchanged."""
        files = self.record.get("files")
        if not isinstance(files, dict):
            return False
        try:
            return all(sha256(self.folder / name) == value for name, value in files.items())
        except (OSError, TypeError):
            return False

    def report(self) -> dict[str, Any] | None:
        """Return the report of the export; None if it has none."""
        return _read_object(self.folder / REPORT_FILE)


def export_name(inputs: Mapping[str, object]) -> str:
    """Return the name of an export: a hash of its inputs, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def list_versions(model: Path) -> list[Version]:
    """Return the exported versions in a model's folder, oldest first; directories without a record do not count."""
    records = ((folder, _read_object(folder / RECORD_FILE)) for folder in _numbered(model))
    return [Version(folder, record) for folder, record in records if record is not None]


def read_version(folder: Path) -> Version:
    """Return the version in a folder that was filled. Raises OSError or ValueError."""
    return Version(folder, json.loads((folder / RECORD_FILE).read_text("utf-8")))


def write_record(folder: Path, inputs: Mapping[str, object], outcome: Mapping[str, object]) -> None:
    """Write the record of the export whose files are in `folder`.

    Args:
        folder: the folder with all its files, including the report.
        inputs: everything that decides the content of the export.
        outcome: further facts about it.
    """
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"export": export_name(inputs), "created": created, **outcome, "inputs": inputs, "files": files}
    (folder / RECORD_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def publish(staged: Path, model: Path) -> Path:
    """Rename a filled folder to the model's next version, and return its path there."""
    model.mkdir(parents=True, exist_ok=True)
    target = model / str(_next_number(model))
    _make_durable(staged)
    staged.rename(target)
    return target


def publish_for_trial(staged: Path, model: Path, staging: Path) -> Path:
    """Rename a filled folder to the version before the newest one, and return its path there.

    The newest one gets a higher number for that, by hard links: a call that names no version never gets what is tried.
    """
    again = staging / f"{model.name}-again"
    newest = list_versions(model)[-1]
    link(newest, again)
    number = _next_number(model)
    _make_durable(staged)
    again.rename(model / str(number + 1))  # first, so that what is tried is never the newest
    target = model / str(number)
    staged.rename(target)
    remove_duplicates(model, staging)
    return target


def link(version: Version, staged: Path) -> None:
    """Copy a version's directory with hard links to its files, to publish an older export again."""
    shutil.copytree(version.folder, staged, copy_function=os.link)


def prune(model: Path, keep: int, staging: Path, protected: Collection[str] = ()) -> list[Version]:
    """Remove all versions but the newest and `keep` older ones, and return the removed ones.

    Each is first moved out of the repository by one rename. Directories without a record are kept, and so are exports
    in `protected`, which do not count.
    """
    versions = list_versions(model)
    older = [version for version in versions[:-1] if version.export not in protected]
    return _remove(older[: max(0, len(older) - keep)], model, staging)


def remove_duplicates(model: Path, staging: Path) -> None:
    """Remove each version whose export has a higher number too."""
    versions = list_versions(model)
    newest = {version.export: version.number for version in versions}
    _remove([version for version in versions if newest[version.export] != version.number], model, staging)


def _remove(removed: Sequence[Version], model: Path, staging: Path) -> list[Version]:
    for version in removed:
        target = staging / f"{model.name}-{version.number}-pruned"
        version.folder.rename(target)
        shutil.rmtree(target)
    return list(removed)


def _numbered(model: Path) -> list[Path]:
    if not model.is_dir():
        return []
    # the names that Triton accepts: digits only, no leading zero
    folders = [path for path in model.iterdir() if path.name.isdecimal() and path.name[0] != "0" and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))


def _next_number(model: Path) -> int:
    return max((int(folder.name) for folder in _numbered(model)), default=0) + 1


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _make_durable(folder: Path) -> None:
    """Flush the files to disk before the rename, so that a power failure leaves no empty version."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:  # a full disk fails here at the latest
            raise ExportError(f"{path}: cannot be written: {error.strerror}") from error
        finally:
            os.close(descriptor)
