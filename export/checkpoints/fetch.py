"""`python -m export weights`: the four published checkpoints, downloaded or given by hand, checked and kept."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import progress

from ..errors import ExportError
from ..files import atomic_write, exclusive_lock
from . import download, load
from .download import Progress, RetryPolicy, hash_of
from .load import CheckpointError
from .registry import LICENSE, PUBLISHED, PublishedFile

ProgressCallback = Callable[[str], None]

LOCK_FILE = "weights.lock.json"  # the hashes of files that no published one is known for
_LINE_SECONDS = 5.0


class LicenseNotAccepted(ExportError):
    """The Wav2Lip weights were not downloaded, since nobody accepted their licence."""


@dataclass(frozen=True)
class FetchOptions:
    """What the person who runs it decides.

    Attributes:
        accept: the licence of the Wav2Lip weights is accepted; None: ask, where there is a terminal.
        replace: a wrong file under an official name may go.
        unverified: files of another hash are taken, if they load.
    """

    accept_license: bool | None = None
    replace: bool = False
    unverified: bool = False


def fetch(
    folder: Path,
    on_progress: ProgressCallback,
    choices: FetchOptions,
    *,
    files: Sequence[PublishedFile] = PUBLISHED,
    given: Path | None = None,
    patience: RetryPolicy | None = None,
) -> None:
    """Make `folder` hold every file, right.

    Files that are there and right are left alone. The others are downloaded, or copied from `given`.

    Args:
        folder: made when it is not there.
        on_progress: takes one line at a time.
        choices: see `Choices`.
        files: what is wanted.
        given: a folder with files brought by hand; nothing is downloaded then.
        patience: how long a download is tried.

    Raises:
        LicenceNotAccepted: a file is for research and personal use only, and nobody accepted that.
        ExportError: a file cannot be had, or is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, on_progress):
        lock = _Lock(folder)
        missing = [file for file in files if not _is_right(file, folder, lock, choices, on_progress)]
        if given is not None:
            for file in missing:
                _adopt(file, given, folder, lock, choices, on_progress)
            return
        if any(file.restricted for file in missing):
            _accept_licence(choices, on_progress)
        with _shown(on_progress) as progress:
            for file in missing:
                sha256 = file.sha256 or lock.sha256(file.name)
                on_progress(f"{file.name}: downloading")
                source, found = download.download(
                    file,
                    folder,
                    sha256=sha256,
                    on_progress=on_progress,
                    progress=progress,
                    patience=patience or RetryPolicy(),
                )
                if file.sha256 is None and sha256 is None:
                    lock.record(file.name, folder / file.name, found, source)
                    on_progress(f"{file.name}: SHA-256 {found}, held from now on in {LOCK_FILE}")
                on_progress(f"{file.name}: downloaded and right")


def _is_right(
    file: PublishedFile, folder: Path, lock: _Lock, choices: FetchOptions, on_progress: ProgressCallback
) -> bool:
    """Whether the file is there and the published one, or the one that was taken before.

    Raises:
        ExportError: another file stands under its name, and may not be replaced.
    """
    path = folder / file.name
    if not path.exists():
        return False
    found, held = hash_of(path), lock.sha256(file.name)
    if found in (file.sha256, held):
        on_progress(f"{file.name}: there, and right")
        return True
    if file.sha256 is None and held is None:
        lock.record(file.name, path, found, "was there already")
        on_progress(f"{file.name}: there; its hash is held from now on in {LOCK_FILE}")
        return True
    if choices.replace:
        on_progress(f"{file.name}: another file, SHA-256 {found}; replaced")
        return False
    raise ExportError(
        f"{path}: not the file that was expected (SHA-256 {found}, not {held or file.sha256}); "
        "move it away, or replace it with --replace"
    )


def _adopt(
    file: PublishedFile, given: Path, folder: Path, lock: _Lock, choices: FetchOptions, on_progress: ProgressCallback
) -> None:
    """Copy a file that was brought by hand, if it is right or may be another."""
    names = (file.name, *(source.rpartition("/")[2] for source in file.sources))
    path = next((given / name for name in names if (given / name).is_file()), None)
    if path is None:
        raise ExportError(f"{given}: no {file.name} in it")
    expected, found = file.sha256 or lock.sha256(file.name), hash_of(path)
    if found != expected and not (expected is None or choices.unverified):
        raise ExportError(
            f"{path}: not the published file (SHA-256 {found}, not {expected}); "
            "weights of your own are taken with --unverified"
        )
    _load(file.name, path)
    with atomic_write(folder / file.name) as temporary:
        shutil.copyfile(path, temporary)
    if found != file.sha256:
        lock.record(file.name, path, found, f"given as {path.name}")
    on_progress(f"{file.name}: taken from {path}{'' if found == file.sha256 else ', its hash is held from now on'}")


def _load(name: str, path: Path) -> None:
    """Prove that a file is what its name says.

    Raises:
        CheckpointError: it is not.
    """
    if name == load.S3FD_FILE:
        load.load_s3fd(path)
    elif name in (load.WAV2LIP_FILE, load.WAV2LIP_GAN_FILE):
        load.load_wav2lip(path)
    elif b"SemanticPredictions" not in path.read_bytes():
        raise CheckpointError(f"{path}: not PixelLib's frozen graph")


def _accept_licence(choices: FetchOptions, on_progress: ProgressCallback) -> None:
    if choices.accept_license:
        return
    on_progress(LICENSE)
    if choices.accept_license is None and sys.stdin.isatty() and sys.stdout.isatty():
        if input("Accept, and download them? [y/N] ").strip().lower() in ("y", "yes"):
            return
        raise LicenseNotAccepted("the licence was not accepted, nothing was downloaded")
    raise LicenseNotAccepted(
        "nothing was downloaded: pass --accept-licence to accept the licence of the Wav2Lip weights"
    )


class _Lock:
    """Hashes of files whose published hash is not known, or that are not the published ones."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._content: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            try:
                self._content = dict(json.loads(self._path.read_text("utf-8")))
            except ValueError as error:
                raise ExportError(f"{self._path}: cannot be read as JSON; mend it or remove it") from error

    def sha256(self, name: str) -> str | None:
        value = self._content.get(name, {}).get("sha256")
        return str(value) if value else None

    def record(self, name: str, path: Path, sha256: str, source: str) -> None:
        today = datetime.now(UTC).date().isoformat()
        self._content[name] = {"size": path.stat().st_size, "sha256": sha256, "source": source, "date": today}
        with atomic_write(self._path) as temporary:
            temporary.write_text(json.dumps(self._content, indent=2, sort_keys=True) + "\n", "utf-8")


class _Lines:
    """Progress for a log: a line every few seconds."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._name, self._began, self._last, self._start = "", 0.0, 0.0, 0

    def update(self, name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if name != self._name:
            self._name, self._began, self._last, self._start = name, now, now, done
        if now - self._last < _LINE_SECONDS:
            return
        self._last = now
        speed = max(1.0, (done - self._start) / (now - self._began))
        rest = f" of {total / 1e6:.1f} MB, {(total - done) / speed:.0f} s left" if total else " MB"
        self._on_progress(f"{name}: {done / 1e6:.1f}{rest}, {speed / 1e6:.1f} MB/s")


class _Bars:
    """Progress for a terminal."""

    def __init__(self, bars: progress.Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, progress.TaskID] = {}

    def update(self, name: str, done: int, total: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[name], completed=done, total=total)


@contextmanager
def _shown(on_progress: ProgressCallback) -> Iterator[Progress]:
    if not sys.stdout.isatty():
        yield _Lines(on_progress)
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bars:
        yield _Bars(bars)
