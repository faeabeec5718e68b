"""Checkpoints are downloaded over HTTP, from servers in the tests."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from export.checkpoints import fetch, registry
from export.checkpoints.download import DownloadError, RetryPolicy, download
from export.checkpoints.fetch import FetchOptions, LicenseNotAccepted
from export.checkpoints.lockfile import LOCK_FILE
from export.checkpoints.progress import ProgressLines
from export.checkpoints.registry import PUBLISHED, PublishedFile
from export.errors import ExportError
from tests.support.weight_server import (
    CONTENT,
    PAGE,
    QUICK,
    SHA256,
    YES,
    ServerBehavior,
    fetch_into,
    published_file,
    serving,
    written_files,
)


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


def test_sources_that_cannot_be_reached_are_reported_once_each(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior()) as one, serving(ServerBehavior()) as other:
        pass
    with pytest.raises(DownloadError) as failed:
        fetch_into(tmp_path, lines, published_file(one, other))
    assert [line for line in lines if one in line or other in line] == [
        f"net.pth: {url}/net.pth: [Errno 111] Connection refused" for url in (one, other)
    ]
    assert str(failed.value) == (
        "net.pth: every source failed: [Errno 111] Connection refused (all 2 of them; is there a network?)"
    )


def test_a_file_of_another_size_is_rejected_before_the_download(tmp_path: Path, lines: list[str]) -> None:
    with serving(ServerBehavior()) as url, pytest.raises(DownloadError, match="1,048,576 bytes, expected 99"):
        fetch_into(tmp_path, lines, published_file(url, size=99))
    assert written_files(tmp_path) == set()


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
