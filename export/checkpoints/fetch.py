"""Fetch the published checkpoints: download them or copy them from a folder, and verify them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ExportError
from ..files import ProgressCallback, atomic_write, exclusive_lock, sha256
from .download import RetryPolicy, download
from .lockfile import LOCK_FILE, Lockfile
from .progress import show_progress
from .registry import LICENSE, PUBLISHED, S3FD_FILE, WAV2LIP_FILE, WAV2LIP_GAN_FILE, PublishedFile


class LicenseNotAccepted(ExportError):
    """The license of the Wav2Lip weights was not accepted, so they were not downloaded."""


@dataclass(frozen=True)
class FetchOptions:
    """The operator's decisions.

    Attributes:
        accept_license: whether the license of the Wav2Lip weights is accepted; None asks in a terminal.
        replace: replace an unexpected file under an official name.
        unverified: also accept files with another hash, if they load.
        source_folder: copy the files from this folder and download nothing.
    """

    accept_license: bool | None = None
    replace: bool = False
    unverified: bool = False
    source_folder: Path | None = None


def fetch(
    folder: Path,
    on_progress: ProgressCallback,
    options: FetchOptions,
    *,
    files: Sequence[PublishedFile] = PUBLISHED,
    policy: RetryPolicy | None = None,
) -> None:
    """Complete `folder`, so that it holds every file, verified.

    Verified files are not touched. The others are downloaded, or copied from `options.source_folder`.

    Args:
        folder: created if it does not exist.
        on_progress: takes one line at a time.
        options: the operator's decisions.
        files: the files to fetch.
        policy: how long a download is retried.

    Raises:
        LicenseNotAccepted: a file is for research and personal use only, and the operator did not accept that.
        ExportError: a file cannot be fetched, or is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder, on_progress):
        work = _Fetch(folder, Lockfile(folder), options, on_progress)
        missing = [file for file in files if not work.is_present(file)]
        if options.source_folder is not None:
            for file in missing:
                work.copy(file, options.source_folder)
        else:
            if any(file.restricted for file in missing):
                _require_license(options, on_progress)
            work.download(missing, policy or RetryPolicy())


class _Fetch:
    """One run of `fetch`."""

    def __init__(self, folder: Path, lock: Lockfile, options: FetchOptions, on_progress: ProgressCallback) -> None:
        self._folder, self._lock, self._options, self._on_progress = folder, lock, options, on_progress

    def is_present(self, file: PublishedFile) -> bool:
        """Return whether the file exists and is the published one, or the one recorded earlier.

        Raises:
            ExportError: another file has its name, and may not be replaced.
        """
        path = self._folder / file.name
        if not path.exists():
            return False
        found, recorded = sha256(path), self._lock.sha256(file.name)
        if found in (file.sha256, recorded):
            self._on_progress(f"{file.name}: already present, checksum matches")
            return True
        if file.sha256 is None and recorded is None:
            self._lock.record(file.name, path, found, "already present")
            self._on_progress(f"{file.name}: already present; no hash was published, recorded {found} in {LOCK_FILE}")
            return True
        if self._options.replace:
            self._on_progress(f"{file.name}: replacing another file, SHA-256 {found}")
            return False
        raise ExportError(
            f"{path}: not the expected file (SHA-256 {found}, expected {recorded or file.sha256}); "
            "move it away, or replace it with --replace"
        )

    def download(self, files: Sequence[PublishedFile], policy: RetryPolicy) -> None:
        """Download the files, and record the hashes of those without a published one."""
        with show_progress(self._on_progress) as progress:
            for file in files:
                expected = file.sha256 or self._lock.sha256(file.name)
                self._on_progress(f"{file.name}: downloading")
                source, found = download(
                    file,
                    self._folder,
                    expected=expected,
                    on_progress=self._on_progress,
                    progress=progress,
                    policy=policy,
                )
                if expected is None:
                    self._lock.record(file.name, self._folder / file.name, found, source)
                    self._on_progress(f"{file.name}: no hash was published, recorded {found} in {LOCK_FILE}")
                self._on_progress(f"{file.name}: downloaded, checksum matches")

    def copy(self, file: PublishedFile, source: Path) -> None:
        """Copy a file from the folder `source`, if it is the published one or `unverified` allows another."""
        names = (file.name, *(address.rpartition("/")[2] for address in file.sources))
        path = next((source / name for name in names if (source / name).is_file()), None)
        if path is None:
            raise ExportError(f"{source}: no {file.name} in this folder")
        expected, found = file.sha256 or self._lock.sha256(file.name), sha256(path)
        if found != expected and not (expected is None or self._options.unverified):
            raise ExportError(
                f"{path}: not the published file (SHA-256 {found}, expected {expected}); "
                "add --unverified to use weights of your own"
            )
        _check_loads(file.name, path)
        with atomic_write(self._folder / file.name) as temporary:
            shutil.copyfile(path, temporary)
        if found != file.sha256:
            self._lock.record(file.name, path, found, f"copied from {path.name}")
        note = "checksum matches" if found == file.sha256 else f"recorded its hash in {LOCK_FILE}"
        self._on_progress(f"{file.name}: copied from {path}, {note}")


def _check_loads(name: str, path: Path) -> None:
    """Raise ExportError if the content of a file does not fit its name."""
    from . import load  # imports torch, which a download does not need

    if name == S3FD_FILE:
        load.load_s3fd(path)
    elif name in (WAV2LIP_FILE, WAV2LIP_GAN_FILE):
        load.load_wav2lip(path)
    elif b"SemanticPredictions" not in path.read_bytes():
        raise ExportError(f"{path}: not PixelLib's frozen graph")


def _require_license(options: FetchOptions, on_progress: ProgressCallback) -> None:
    """Raise LicenseNotAccepted unless the operator accepts, by an option or in the terminal."""
    if options.accept_license:
        return
    on_progress(LICENSE)
    if options.accept_license is None and sys.stdin.isatty() and sys.stdout.isatty():
        if input("Accept the license and download the weights? [y/N] ").strip().lower() in ("y", "yes"):
            return
        raise LicenseNotAccepted("nothing was downloaded: the license was not accepted")
    raise LicenseNotAccepted(
        "nothing was downloaded: to accept the license of the Wav2Lip weights, add --accept-license"
    )
