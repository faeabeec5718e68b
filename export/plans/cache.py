"""The plans of this machine, by everything that decides what they are.

A plan fits one kind of GPU, one version of TensorRT and one ONNX file. It is kept in a folder named by the hash of
these and of the options of its build, so it is built again only if one of them changes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import ExportError
from ..files import ProgressCallback, exclusive_lock, sha256
from ..variants import Format
from .machine import Gpu
from .trtexec_options import Version

FOLDER = Path("/var/cache/talking-avatar/tensorrt")  # a volume of the containers
PLAN_FILE = Format.TENSORRT.file
RECORD_FILE = "plan.json"  # next to each plan: what it was built from, and how accurate it is
_BUILDING = ".building-"  # prefix of a folder that is being filled
_PROBE = ".writable"


@dataclass(frozen=True)
class CachedPlan:
    """A plan with its record; the plan is as it was when it was built."""

    plan: Path
    record: Mapping[str, object]


class PlanCache:
    """A folder of plans and timing caches; `open_cache` opens one.

    Args:
        folder: the folder, which no other process uses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for stale in folder.glob(f"{_BUILDING}*"):
            shutil.rmtree(stale)  # of a build that was killed

    def find(self, key: str) -> CachedPlan | None:
        """Return a plan, or None if there is none or it is damaged."""
        return read(self._folder / key)

    @contextmanager
    def building(self, key: str) -> Iterator[Path]:
        """Yield an empty folder for `PLAN_FILE` and `RECORD_FILE`, which becomes the entry if the block succeeds."""
        with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=self._folder) as made:
            filled = Path(made) / "entry"
            filled.mkdir()
            yield filled
            shutil.rmtree(self._folder / key, ignore_errors=True)  # a damaged one
            filled.rename(self._folder / key)

    def timing_cache(self, gpu: Gpu, version: Version) -> Path:
        """Return the file in which TensorRT keeps its measurements of kernels on this kind of GPU."""
        return self._folder / f"{_timing_prefix(gpu)}{'.'.join(map(str, version))}.cache"

    def prune(self, gpu: Gpu, version: Version, used: Collection[str]) -> list[str]:
        """Remove the plans for this kind of GPU that are not `used`, and timing caches of other versions.

        What belongs to other kinds of GPUs stays: machines may share the folder.

        Returns:
            The keys of the removed plans.
        """
        removed = []
        for folder in sorted(self._folder.iterdir()):
            if not (folder / RECORD_FILE).is_file() or folder.name in used:
                continue
            inputs = _record(folder).get("inputs")
            if not isinstance(inputs, dict) or inputs.get("gpu") == gpu.name:
                shutil.rmtree(folder)
                removed.append(folder.name)
        kept = self.timing_cache(gpu, version)
        for timing in self._folder.glob(f"{_timing_prefix(gpu)}[0-9]*.cache"):
            if timing != kept:
                timing.unlink()
        return removed


@contextmanager
def open_cache(folder: Path, on_progress: ProgressCallback) -> Iterator[PlanCache]:
    """Yield the cache in `folder`, which is created if it does not exist, and is locked against other processes.

    Raises:
        ExportError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PROBE).touch()
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror}; give --cache a folder that can") from error
    (folder / _PROBE).unlink()
    with exclusive_lock(folder, on_progress):
        yield PlanCache(folder)


def write_record(folder: Path, key: str, inputs: Mapping[str, object], outcome: Mapping[str, object]) -> None:
    """Write the record of the plan in `folder`."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    files = {PLAN_FILE: sha256(folder / PLAN_FILE)}
    content = {"key": key, "created": created, **outcome, "inputs": inputs, "files": files}
    (folder / RECORD_FILE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def read(folder: Path) -> CachedPlan | None:
    """Return the plan in `folder`, or None if there is none, or it does not match its record."""
    plan, record = folder / PLAN_FILE, _record(folder)
    files = record.get("files")
    try:
        intact = isinstance(files, dict) and files.get(PLAN_FILE) == sha256(plan)
    except OSError:
        return None
    return CachedPlan(plan, record) if intact else None


def _timing_prefix(gpu: Gpu) -> str:
    return f"timing-{''.join(letter if letter.isalnum() else '-' for letter in gpu.name)}-"


def _record(folder: Path) -> Mapping[str, object]:
    try:
        record = json.loads((folder / RECORD_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
