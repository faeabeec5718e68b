"""A download that was cut continues where it ended, and parts of two files are never mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.checkpoints.download import DownloadError
from tests.support.weight_server import (
    CONTENT,
    ServerBehavior,
    fetch_into,
    published_file,
    serving,
    written_files,
)


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
