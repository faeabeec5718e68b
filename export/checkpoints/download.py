"""One file over HTTP: from several sources, resumed after a break, under its name only when it is whole and right."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import random
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import lipsync

from ..errors import ExportError
from .registry import PublishedFile

Answer: TypeAlias = Any  # urllib publishes no type of its own for what `urlopen` gives
PART = ".part"  # suffix of a file on its way
NOTE = ".part.json"  # beside it: where it comes from, so that it can be resumed
SPARE_BYTES = 64 << 20  # that a download leaves free on the disk
_PIECE = 1 << 18
_FINAL = frozenset({401, 403, 404, 410, 451})  # asking again would not help
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


class DownloadError(ExportError):
    """A file could not be had; the message says what every source answered."""


class _PermanentError(Exception):
    """This source is no use for this file."""


class _TransientError(Exception):
    """This source may do better later."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait  # seconds that the server asked for


@dataclass(frozen=True)
class RetryPolicy:
    """How long a download is tried.

    Attributes:
        rounds: times that all sources are tried in turn without one byte of progress.
        timeout: seconds to connect, and between two pieces.
        pause: seconds after the first round; doubled after each, with up to half of it added at random.
        longest: seconds that are waited at most, whatever a server asks for.
    """

    rounds: int = 4
    timeout: float = 30.0
    pause: float = 1.0
    max_pause: float = 60.0


class Progress(Protocol):
    """Is told how far a file is."""

    def update(self, name: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of the file are here."""
        ...


def download(
    file: PublishedFile,
    folder: Path,
    *,
    sha256: str | None,
    on_progress: Callable[[str], None],
    progress: Progress,
    patience: RetryPolicy,
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> tuple[str, str]:
    """Bring `file` into `folder`.

    What has come is kept under `NAME.part` until the file is whole, its size and hash are right, and it gets its
    name by a rename. The next call goes on from there.

    Args:
        file: what, and where from.
        folder: where to; it is there and held by this process alone.
        sha256: the hash that it must have; None: any.
        on_progress: takes a line for each source that fails.
        progress: is told how far it is.
        patience: how long it is tried.
        free: bytes that are free in a folder.

    Returns:
        The source that it came from and its SHA-256.

    Raises:
        DownloadError: no source gave the file, or the disk is full.
    """
    sources, failures = list(file.sources), dict[str, str]()
    pause, idle = patience.pause, 0
    while sources and idle < patience.rounds:
        before = _size(folder / (file.name + PART))
        longest_wait = 0.0
        for source in list(sources):
            try:
                with _disk_errors(folder):
                    return source, _try(file, source, folder, sha256, progress, patience, free)
            except _PermanentError as error:
                sources.remove(source)
                failures[source] = str(error)
            except _TransientError as error:
                failures[source] = str(error)
                longest_wait = max(longest_wait, error.wait)
            on_progress(f"{file.name}: {source}: {failures[source]}")
        idle = 0 if _size(folder / (file.name + PART)) > before else idle + 1
        if sources and idle < patience.rounds:
            time.sleep(min(patience.max_pause, max(longest_wait, pause * random.uniform(1, 1.5))))  # noqa: S311
            pause *= 2
    raise DownloadError(f"{file.name}: no source gave it: " + "; ".join(f"{s}: {why}" for s, why in failures.items()))


def hash_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _try(
    file: PublishedFile,
    source: str,
    folder: Path,
    sha256: str | None,
    progress: Progress,
    patience: RetryPolicy,
    free: Callable[[Path], int],
) -> str:
    """The file's hash, after it has come from `source` and got its name."""
    part, note = folder / (file.name + PART), folder / (file.name + NOTE)
    known = _note(note)
    if sha256 is None and known.get("source") != source:
        part.unlink(missing_ok=True)  # nothing would tell two files' halves from a whole
    mixed = bool(_size(part)) and known.get("source") != source
    headers = {"User-Agent": f"talking-avatar/{lipsync.__version__}", "Accept-Encoding": "identity"}
    if _size(part):
        headers["Range"] = f"bytes={_size(part)}-"
        if known.get("source") == source and known.get("etag"):
            headers["If-Range"] = str(known["etag"])
    with _answer(source, headers, patience) as answer:
        total = _total(answer, part)
        if answer.status != http.client.PARTIAL_CONTENT:
            part.unlink(missing_ok=True)  # from the beginning: the server knows no ranges, or the file has changed
        _refuse_other(file, answer, total)
        if total is not None and total - _size(part) + SPARE_BYTES > free(folder):
            missing = total - _size(part) + SPARE_BYTES - free(folder)
            raise DownloadError(f"{file.name}: {folder} lacks {missing / 1e6:.0f} MB of free space for it")
        note.write_text(json.dumps({"source": source, "etag": answer.headers.get("ETag")}), "utf-8")
        _receive(file, answer, part, total, progress)
    found = hash_of(part)
    if sha256 is not None and found != sha256:
        part.unlink()
        if mixed:  # its beginning came from elsewhere
            raise _TransientError("the whole has another hash than expected; from the beginning next time")
        raise _PermanentError(f"another file: SHA-256 {found}, expected {sha256}")
    part.replace(folder / file.name)
    note.unlink(missing_ok=True)
    return found


@contextmanager
def _answer(source: str, headers: Mapping[str, str], patience: RetryPolicy) -> Iterator[Answer]:
    """The server's answer; proxies are those of the environment."""
    request = urllib.request.Request(source, headers=dict(headers))  # noqa: S310 - a source may be any URL
    try:
        # an opener of its own: the default one keeps the proxies of the first call
        with urllib.request.build_opener().open(request, timeout=patience.timeout) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _FINAL:
                raise _PermanentError(f"{error.code} {error.reason}") from error
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _TransientError("has nothing after what is here") from error
            raise _TransientError(f"{error.code} {error.reason}", _wait(error.headers.get("Retry-After"))) from error
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _TransientError(str(reason) or type(reason).__name__) from error


def _refuse_other(file: PublishedFile, answer: Answer, total: int | None) -> None:
    """Turn away what cannot be the file, before anything of it is kept."""
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise _PermanentError("a web page in place of the file")
    if file.size is not None and total is not None and total != file.size:
        raise _PermanentError(f"another file: {total:,} bytes, expected {file.size:,}")


def _receive(file: PublishedFile, answer: Answer, part: Path, total: int | None, progress: Progress) -> None:
    done = _size(part)
    with part.open("ab") as out:
        while piece := answer.read(_PIECE):
            if done == 0 and piece.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_PAGES):
                raise _PermanentError("a web page in place of the file")
            out.write(piece)
            done += len(piece)
            progress.update(file.name, done, total or file.size)
        out.flush()
        os.fsync(out.fileno())
    expected = total or file.size
    if expected is not None and done < expected:
        raise _TransientError(f"the connection was cut after {done:,} of {expected:,} bytes")
    if expected is not None and done > expected:
        part.unlink()
        raise _TransientError(f"sent {done:,} bytes, {expected:,} expected; from the beginning next time")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A disk that cannot take it is not the sources' fault: stop, and keep what is here for the next time."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DownloadError(
                f"{folder}: {error.strerror}; what has come is kept, run again when there is space"
            ) from error
        if error.filename is None:  # not a file's: the connection's
            raise _TransientError(str(error)) from error
        raise DownloadError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _total(answer: Answer, part: Path) -> int | None:
    """Bytes of the whole file, as the server says."""
    if answer.status == http.client.PARTIAL_CONTENT:
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        return int(whole) if whole.isdecimal() else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _wait(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _note(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict):
            return content
    return {}
