"""Checkpoints are downloaded over HTTP, from servers in the tests."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from export.checkpoints import fetch, registry
from export.checkpoints.download import DownloadError, RetryPolicy
from export.checkpoints.fetch import FetchOptions, LicenseNotAccepted
from export.checkpoints.lockfile import LOCK_FILE
from export.checkpoints.progress import ProgressLines
from export.checkpoints.registry import PUBLISHED, PublishedFile
from export.errors import ExportError

CONTENT = bytes(range(256)) * 4096  # a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>moved</body></html>"
QUICK = RetryPolicy(rounds=2, timeout=2, pause=0.01, max_pause=0.05)
YES = FetchOptions(accept_license=True)
ROOT = Path(__file__).parents[3]


@dataclass
class ServerBehavior:
    """The behavior of a test server, and the requests that it has received."""

    content: bytes = CONTENT
    status: int = 200
    kind: str = "application/octet-stream"
    ranges: bool = True
    cut: list[int] = field(default_factory=list)  # bytes after which each of the next responses ends
    etag: str = '"1"'
    pause: float = 0.0  # seconds between blocks of 64 KB
    busy: int = 0  # number of next responses that are 503, with Retry-After
    requests: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(behavior: ServerBehavior) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            behavior.requests.append({"path": self.path, **self.headers})
            start, status, body = 0, behavior.status, behavior.content
            if behavior.busy:
                behavior.busy -= 1
                status, body = 503, b"later"
            requested_range = self.headers.get("Range", "")
            fresh = self.headers.get("If-Range", behavior.etag) == behavior.etag
            if status == 200 and behavior.ranges and fresh and requested_range:
                start, status = int(requested_range.removeprefix("bytes=").removesuffix("-")), 206
            self.send_response(status)
            self.send_header("Content-Type", behavior.kind)
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", behavior.etag)
            if status == 503:
                self.send_header("Retry-After", "1")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            end = start + behavior.cut.pop(0) if behavior.cut else len(body)
            for i in range(start, min(end, len(body)), 65536):
                self.wfile.write(body[i : min(i + 65536, end)])
                time.sleep(behavior.pause)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def lines() -> list[str]:
    return []


def published_file(*sources: str, sha256: str | None = SHA256, size: int | None = None) -> tuple[PublishedFile]:
    return (PublishedFile("net.pth", tuple(f"{source}/net.pth" for source in sources), sha256, size),)


def fetch_into(folder: Path, lines: list[str], files: tuple[PublishedFile, ...], options: FetchOptions = YES) -> None:
    fetch.fetch(folder, lines.append, options, files=files, policy=QUICK)


def written_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_published_table_is_complete() -> None:
    assert {file.name for file in PUBLISHED} == {"wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth", "xception_pascalvoc.pb"}
    assert {file.name for file in PUBLISHED if file.restricted} == {"wav2lip.pth", "wav2lip_gan.pth"}
    assert [file.name for file in PUBLISHED if file.sha256 is None] == ["xception_pascalvoc.pb"]
    assert all(len(file.sources) >= 2 for file in PUBLISHED)
    assert all(source.startswith("https://") for file in PUBLISHED for source in file.sources)


def test_a_file_is_downloaded_once(tmp_path: Path, lines: list[str]) -> None:
    with serving(server := ServerBehavior()) as url:
        fetch_into(tmp_path, lines, published_file(url, size=len(CONTENT)))
        assert (tmp_path / "net.pth").read_bytes() == CONTENT
        assert written_files(tmp_path) == {"net.pth"}
        fetch_into(tmp_path, lines, published_file(url, size=len(CONTENT)))
    assert len(server.requests) == 1
    assert lines[-1] == "net.pth: already present, checksum matches"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (ServerBehavior(status=404), "404 Not Found"),
        (ServerBehavior(content=PAGE, kind="text/html"), "a web page instead of the file"),
        (ServerBehavior(content=PAGE), "a web page instead of the file"),
        (ServerBehavior(content=b"other" * 999), "another file"),
        (ServerBehavior(status=503), "503 Service Unavailable"),
    ],
    ids=["404", "page", "page with a binary type", "another file", "503"],
)
def test_the_next_source_is_used_if_one_does_not_have_the_file(
    tmp_path: Path, lines: list[str], first: ServerBehavior, reason: str
) -> None:
    with serving(first) as bad, serving(ServerBehavior()) as good:
        fetch_into(tmp_path, lines, published_file(bad, good))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert written_files(tmp_path) == {"net.pth"}
    assert any(line.startswith(f"net.pth: {bad}/net.pth: {reason}") for line in lines)


def test_an_unreachable_source_is_skipped(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior()) as dead:
        pass
    with serving(ServerBehavior()) as good:
        fetch_into(tmp_path, lines, published_file(dead, good))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_the_pause_that_a_server_requests_is_respected(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior(busy=1)) as url:
        begin = time.monotonic()
        policy = RetryPolicy(rounds=2, timeout=2, pause=0.01, max_pause=5)
        fetch.fetch(tmp_path, lines.append, YES, files=published_file(url), policy=policy)
    assert time.monotonic() - begin >= 1  # the value of Retry-After; without it the retry follows after 0.01 s
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_if_every_source_fails_no_file_is_written(tmp_path: Path, lines: list[str]) -> None:
    with (
        serving(ServerBehavior(content=b"wrong" * 100)) as one_url,
        serving(ServerBehavior(status=404)) as other,
        pytest.raises(DownloadError, match=r"net\.pth: every source failed: .*another file: SHA-256.*404 Not Found"),
    ):
        fetch_into(tmp_path, lines, published_file(one_url, other))
    assert not (tmp_path / "net.pth").exists()


def test_a_file_of_another_size_is_rejected_before_the_download(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior()) as url, pytest.raises(DownloadError, match="1,048,576 bytes, expected 99"):
        fetch_into(tmp_path, lines, published_file(url, size=99))
    assert written_files(tmp_path) == set()


def test_a_download_resumes_after_a_cut_connection(tmp_path: Path, lines: list[str]) -> None:
    with serving(server := ServerBehavior(cut=[300_000, 200_000])) as url:
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert server.requests[1]["If-Range"] == '"1"'


def test_a_download_resumes_in_another_run_from_another_source(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior(cut=[300_000, 0, 0, 0])) as url, pytest.raises(DownloadError, match="was cut"):
        fetch_into(tmp_path, lines, published_file(url))
    assert written_files(tmp_path) == {"net.pth.part", "net.pth.part.json"}
    with serving(server := ServerBehavior()) as url:
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.requests[0]["Range"] == "bytes=300000-"


def test_a_download_starts_over_if_the_server_ignores_ranges(tmp_path: Path, lines: list[str]) -> None:
    with serving(server := ServerBehavior(ranges=False, cut=[300_000])) as url:
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=300000-"


def test_a_download_starts_over_if_the_file_has_changed(tmp_path: Path, lines: list[str]) -> None:
    with serving(server := ServerBehavior(cut=[300_000, 0, 0])) as url:
        with pytest.raises(DownloadError):
            fetch_into(tmp_path, lines, published_file(url))
        server.etag, server.cut = '"2"', []
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_parts_of_two_files_are_never_accepted_as_one(tmp_path: Path, lines: list[str]) -> None:
    (tmp_path / "net.pth.part").write_bytes(b"x" * 300_000)
    with serving(ServerBehavior()) as url:
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_file_without_a_published_hash_is_checked_against_its_first_download(
    tmp_path: Path, lines: list[str]
) -> None:
    with serving(server := ServerBehavior()) as url:
        files = published_file(url, sha256=None)
        fetch_into(tmp_path, lines, files)
        recorded = json.loads((tmp_path / LOCK_FILE).read_text())["net.pth"]
        assert (recorded["sha256"], recorded["size"], recorded["source"]) == (SHA256, len(CONTENT), f"{url}/net.pth")
        (tmp_path / "net.pth").write_bytes(b"changed")
        with pytest.raises(ExportError, match=r"net\.pth: not the expected file.*--replace"):
            fetch_into(tmp_path, lines, files)
        assert (tmp_path / "net.pth").read_bytes() == b"changed"
        server.content = CONTENT[::-1]
        with pytest.raises(DownloadError, match="another file: SHA-256"):
            fetch_into(tmp_path, lines, files, FetchOptions(accept_license=True, replace=True))
        server.content = CONTENT
        fetch_into(tmp_path, lines, files, FetchOptions(accept_license=True, replace=True))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_too_little_disk_space_is_reported_before_the_download(tmp_path: Path, lines: list[str]) -> None:
    from export.checkpoints.download import download

    with serving(ServerBehavior()) as url, pytest.raises(DownloadError, match=r"needs 68 MB more free space"):
        download(
            published_file(url)[0],
            tmp_path,
            expected=SHA256,
            on_progress=lines.append,
            progress=ProgressLines(lines.append),
            policy=QUICK,
            free=lambda folder: 0,
        )
    assert written_files(tmp_path) == set()


SCRIPT = """
import resource, sys
from pathlib import Path
from export.checkpoints import fetch
from export.checkpoints.download import RetryPolicy
from export.checkpoints.registry import PublishedFile
url, folder, sha256, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
file = PublishedFile("net.pth", (url + "/net.pth",), sha256)
try:
    fetch.fetch(Path(folder), lambda line: print(line, flush=True), fetch.FetchOptions(accept_license=True),
                files=(file,), policy=RetryPolicy(rounds=2, timeout=20, pause=0.01))
except KeyboardInterrupt:
    sys.exit("interrupted")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def start(url: str, folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-c", SCRIPT, url, str(folder), SHA256, str(limit)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_ends_the_download_with_one_line_and_the_part_is_kept(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior()) as url:
        with start(url, tmp_path, limit=500_000) as process:  # limits the size of files, like a full disk
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert stderr.startswith("DownloadError: ")
        assert "the received part is kept" in stderr
        assert 0 < (tmp_path / "net.pth.part").stat().st_size <= 500_000
        fetch_into(tmp_path, lines, published_file(url))
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_two_processes_at_once_download_one_file_once(tmp_path: Path) -> None:
    with serving(server := ServerBehavior(pause=2)) as url, start(url, tmp_path) as first:
        assert first.stdout is not None
        while "downloading" not in first.stdout.readline():
            assert first.poll() is None
        with start(url, tmp_path) as second:
            assert second.stdout is not None
            assert "waiting for it" in second.stdout.readline()
            server.pause = 0
            outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "net.pth: already present, checksum matches" in outputs[1]
    assert len(server.requests) == 1


def test_the_received_part_is_kept_after_ctrl_c(tmp_path: Path, lines: list[str]) -> None:
    with serving(server := ServerBehavior(pause=0.1)) as url:
        with start(url, tmp_path) as process:
            deadline = time.monotonic() + 60
            while not (tmp_path / "net.pth.part").exists() or not (tmp_path / "net.pth.part").stat().st_size:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[1] == "interrupted\n"
        received = (tmp_path / "net.pth.part").stat().st_size
        assert 0 < received < len(CONTENT)
        server.pause = 0
        fetch_into(tmp_path, lines, published_file(url))
    assert server.requests[-1]["Range"] == f"bytes={received}-"
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(proxy := ServerBehavior()) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        fetch_into(tmp_path, lines, published_file("http://weights.example"))
    assert [request["path"] for request in proxy.requests] == ["http://weights.example/net.pth"]


def test_a_mirror_is_the_first_source() -> None:
    (file,) = registry.with_mirror(published_file("https://source.example"), "https://mirror.example/store/")
    assert file.sources == ("https://mirror.example/store/net.pth", "https://source.example/net.pth")


RESTRICTED = (PublishedFile("net.pth", ("http://127.0.0.1:9/net.pth",), SHA256, restricted=True),)


def test_without_a_terminal_the_license_must_be_accepted_by_the_flag(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(LicenseNotAccepted, match="--accept-license"):
        fetch_into(tmp_path, lines, RESTRICTED, FetchOptions())
    assert "research" in lines[0]
    assert written_files(tmp_path) == set()


@pytest.mark.parametrize(("answer", "accepted"), [("y", True), ("n", False), ("", False)])
def test_in_a_terminal_the_license_is_accepted_at_a_prompt(tmp_path: Path, answer: str, accepted: bool) -> None:
    script = SCRIPT.replace("accept_license=True", "").replace("sha256)", "sha256, restricted=True)")
    with serving(server := ServerBehavior()) as url:
        here, there = pty.openpty()
        command = [sys.executable, "-c", script, url, str(tmp_path), SHA256, "0"]
        with subprocess.Popen(command, cwd=ROOT, stdin=there, stdout=there, stderr=there) as process:
            os.close(there)
            shown = b""
            while b"[y/N]" not in shown:
                shown += os.read(here, 1024)
            os.write(here, answer.encode() + b"\n")
            while True:
                try:
                    shown += os.read(here, 1024)
                except OSError:  # the process has closed its side
                    break
        os.close(here)
    assert b"research" in shown
    assert (process.returncode == 0) is accepted
    assert (tmp_path / "net.pth").exists() is accepted
    assert bool(server.requests) is accepted
    assert accepted or b"nothing was downloaded" in shown


def test_files_from_a_folder_are_checked_in_the_same_way(
    tmp_path: Path, lines: list[str], stand_in_weights: Path
) -> None:
    given, folder = tmp_path / "given", tmp_path / "weights"
    given.mkdir()
    (given / "s3fd-619a316812.pth").symlink_to(stand_in_weights / "s3fd.pth")
    own = hashlib.sha256((stand_in_weights / "s3fd.pth").read_bytes()).hexdigest()
    source = "https://source.example/s3fd-619a316812.pth"

    def take(sha256: str, options: FetchOptions = YES) -> None:
        files = (PublishedFile("s3fd.pth", (source,), sha256),)
        fetch.fetch(folder, lines.append, replace(options, source_folder=given), files=files)

    with pytest.raises(ExportError, match=r"not the published file.*--unverified"):
        take("0" * 64)
    assert written_files(folder) == set()
    take(own)
    assert (folder / "s3fd.pth").read_bytes() == (stand_in_weights / "s3fd.pth").read_bytes()
    assert written_files(folder) == {"s3fd.pth"}
    (folder / "s3fd.pth").unlink()
    take("0" * 64, FetchOptions(unverified=True))
    assert json.loads((folder / LOCK_FILE).read_text())["s3fd.pth"]["sha256"] == own
    take("0" * 64)  # from now on this file is accepted
    assert lines[-1] == "s3fd.pth: already present, checksum matches"


def test_a_file_from_a_folder_that_is_no_checkpoint_is_rejected(tmp_path: Path, lines: list[str]) -> None:
    given, folder = tmp_path / "given", tmp_path / "weights"
    given.mkdir()
    (given / "s3fd.pth").write_bytes(PAGE)
    files = (PublishedFile("s3fd.pth", ("https://source.example/s3fd.pth",), "0" * 64),)
    with pytest.raises(ExportError, match="web page"):
        fetch.fetch(folder, lines.append, FetchOptions(unverified=True, source_folder=given), files=files)
    with pytest.raises(ExportError, match=r"no net\.pth in this folder"):
        fetch.fetch(
            folder, lines.append, FetchOptions(source_folder=given), files=published_file("https://source.example")
        )
    assert written_files(folder) == set()
