"""Download one file over HTTP: from several sources, resumed after an interruption, its size and hash verified.

The received bytes are kept as `NAME.part` until the file is complete, its size and hash are verified, and it is
renamed to its name. The next call continues from them.
"""

from __future__ import annotations

import errno
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
from http.client import HTTPResponse
from pathlib import Path

import lipsync

from ..errors import ExportError
from ..files import ProgressCallback, sha256
from .progress import DownloadProgress
from .registry import PublishedFile

PART = ".part"  # suffix of an incomplete file
NOTE = ".part.json"  # suffix of the file next to it: the source of the incomplete file, needed to resume it
SPARE_BYTES = 64 << 20  # disk space that a download leaves free
_BLOCK_BYTES = 1 << 18
_FINAL = frozenset({401, 403, 404, 410, 451})  # statuses that a retry would not change
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


class DownloadError(ExportError):
    """The download failed; the message gives the reason for every source."""


class _PermanentError(Exception):
    """This source does not have the file; a retry would not help."""


class _TransientError(Exception):
    """This source failed, but a retry may succeed."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait  # seconds that the server asked for


@dataclass(frozen=True)
class RetryPolicy:
    """How long a download is retried.

    Attributes:
        rounds: number of rounds over all sources without one byte of progress, after which the download fails.
        timeout: seconds to connect, and between two blocks.
        pause: seconds after the first round; doubled after each round, with up to half of it added at random.
        max_pause: upper limit of a pause in seconds, whatever a server asks for.
    """

    rounds: int = 4
    timeout: float = 30.0
    pause: float = 1.0
    max_pause: float = 60.0


def free_bytes(folder: Path) -> int:
    """Return the free disk space in `folder`."""
    return shutil.disk_usage(folder).free


def download(
    file: PublishedFile,
    folder: Path,
    *,
    expected: str | None,
    on_progress: ProgressCallback,
    progress: DownloadProgress,
    policy: RetryPolicy,
    free: Callable[[Path], int] = free_bytes,
) -> tuple[str, str]:
    """Download `file` into `folder`.

    Args:
        file: its name, size and sources.
        folder: an existing folder that this process has locked.
        expected: the required SHA-256; None accepts any.
        on_progress: takes a line for each source that fails.
        progress: shows the number of received bytes.
        policy: how long the download is retried.
        free: returns the free bytes in a folder.

    Returns:
        The source that served the file, and its SHA-256.

    Raises:
        DownloadError: every source failed, or the disk is full.
    """
    return _Download(file, folder, expected, progress, policy, free).run(on_progress)


class _Download:
    """The download of one file into one folder."""

    def __init__(
        self,
        file: PublishedFile,
        folder: Path,
        expected: str | None,
        progress: DownloadProgress,
        policy: RetryPolicy,
        free: Callable[[Path], int],
    ) -> None:
        self._file, self._folder, self._expected = file, folder, expected
        self._progress, self._policy, self._free = progress, policy, free
        self._part, self._note = folder / (file.name + PART), folder / (file.name + NOTE)

    def run(self, on_progress: ProgressCallback) -> tuple[str, str]:
        """Try all sources in turn until one has served the file."""
        sources, failures = list(self._file.sources), dict[str, str]()
        pause, idle, policy = self._policy.pause, 0, self._policy
        while sources and idle < policy.rounds:
            before = _size(self._part)
            longest_wait = 0.0
            for source in list(sources):
                try:
                    with _disk_errors(self._folder):
                        return source, self._try(source)
                except _PermanentError as error:
                    sources.remove(source)
                    reason = str(error)
                except _TransientError as error:
                    reason = str(error)
                    longest_wait = max(longest_wait, error.wait)
                if failures.get(source) != reason:  # each reason is told once
                    on_progress(f"{self._file.name}: {source}: {reason}")
                failures[source] = reason
            idle = 0 if _size(self._part) > before else idle + 1
            if sources and idle < policy.rounds:
                time.sleep(min(policy.max_pause, max(longest_wait, pause * random.uniform(1, 1.5))))  # noqa: S311
                pause *= 2
        raise DownloadError(f"{self._file.name}: every source failed: {_reasons(failures)}")

    def _try(self, source: str) -> str:
        """Download the file from `source`, rename it to its name, and return its hash."""
        known = _read_note(self._note)
        if self._expected is None and known.get("source") != source:
            self._part.unlink(missing_ok=True)  # without a hash, a file of two sources could not be recognized
        mixed = bool(_size(self._part)) and known.get("source") != source
        with _open(source, self._headers(source, known), self._policy) as response:
            self._receive(source, response)
        found = sha256(self._part)
        if self._expected is not None and found != self._expected:
            self._part.unlink()
            if mixed:  # its beginning is from another source
                raise _TransientError("the complete file has another hash than expected; the next try starts over")
            raise _PermanentError(f"another file: SHA-256 {found}, expected {self._expected}")
        self._part.replace(self._folder / self._file.name)
        self._note.unlink(missing_ok=True)
        return found

    def _headers(self, source: str, known: Mapping[str, object]) -> dict[str, str]:
        """Return the request's headers, which ask for the missing bytes only."""
        headers = {"User-Agent": f"talking-avatar/{lipsync.__version__}", "Accept-Encoding": "identity"}
        if _size(self._part):
            headers["Range"] = f"bytes={_size(self._part)}-"
            if known.get("source") == source and known.get("etag"):
                headers["If-Range"] = str(known["etag"])
        return headers

    def _receive(self, source: str, response: HTTPResponse) -> None:
        """Check the response's headers, and append its body to the part."""
        total = _total(response)
        if response.status != http.client.PARTIAL_CONTENT:
            self._part.unlink(missing_ok=True)  # start over: the server ignores ranges, or the file has changed
        self._check_headers(response, total)
        if total is not None:
            self._check_space(total - _size(self._part) + SPARE_BYTES)
        self._note.write_text(json.dumps({"source": source, "etag": response.headers.get("ETag")}), "utf-8")
        done, expected = self._append(response, total), total or self._file.size
        if expected is not None and done < expected:
            raise _TransientError(f"the connection was cut after {done:,} of {expected:,} bytes")
        if expected is not None and done > expected:
            self._part.unlink()
            raise _TransientError(f"sent {done:,} bytes, expected {expected:,}; the next try starts over")

    def _check_headers(self, response: HTTPResponse, total: int | None) -> None:
        """Reject a response that cannot be the file, before any of it is kept."""
        if "text/html" in response.headers.get("Content-Type", ""):
            raise _PermanentError("a web page instead of the file")
        if self._file.size is not None and total is not None and total != self._file.size:
            raise _PermanentError(f"another file: {total:,} bytes, expected {self._file.size:,}")

    def _check_space(self, required: int) -> None:
        missing = required - self._free(self._folder)
        if missing > 0:
            raise DownloadError(f"{self._file.name}: {self._folder} needs {missing / 1e6:.0f} MB more free space")

    def _append(self, response: HTTPResponse, total: int | None) -> int:
        """Append the body to the part, flush it to disk, and return the part's size."""
        done = _size(self._part)
        with self._part.open("ab") as out:
            while block := response.read(_BLOCK_BYTES):
                if done == 0 and block.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower().startswith(_PAGES):
                    raise _PermanentError("a web page instead of the file")
                out.write(block)
                done += len(block)
                self._progress.update(self._file.name, done, total or self._file.size)
            out.flush()
            os.fsync(out.fileno())
        return done


def _reasons(failures: Mapping[str, str]) -> str:
    """Return why the sources failed; a reason that all of them have, only once."""
    reasons = set(failures.values())
    if len(failures) > 1 == len(reasons):
        return f"{reasons.pop()} (all {len(failures)} of them; is there a network?)"
    return "; ".join(f"{source}: {reason}" for source, reason in failures.items())


@contextmanager
def _open(source: str, headers: Mapping[str, str], policy: RetryPolicy) -> Iterator[HTTPResponse]:
    """Send the request and yield the response; proxies are taken from the environment."""
    request = urllib.request.Request(source, headers=dict(headers))  # noqa: S310 - a source may be any URL
    try:
        # a new opener each time: the default one keeps the proxies of its first call
        with urllib.request.build_opener().open(request, timeout=policy.timeout) as response:
            yield response
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _FINAL:
                raise _PermanentError(f"{error.code} {error.reason}") from error
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _TransientError("the server has no bytes beyond those received") from error
            wait = _wait_seconds(error.headers.get("Retry-After"))
            raise _TransientError(f"{error.code} {error.reason}", wait) from error
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _TransientError(str(reason) or type(reason).__name__) from error


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Fail at once if the disk is full or not writable: no other source would help. The part is kept."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DownloadError(
                f"{folder}: {error.strerror}; the received part is kept, free some space and run this again"
            ) from error
        if error.filename is None:  # an error of the connection, not of a file
            raise _TransientError(str(error)) from error
        raise DownloadError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _total(response: HTTPResponse) -> int | None:
    """Return the size of the complete file, if the server sends it."""
    if response.status == http.client.PARTIAL_CONTENT:
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(whole) if whole.isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _wait_seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_note(path: Path) -> Mapping[str, object]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict):
            return content
    return {}
