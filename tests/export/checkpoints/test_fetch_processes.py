"""A download in a process of its own: a full disk, two processes at once, Ctrl-C, and the prompt of a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.weight_server import (
    CONTENT,
    SHA256,
    ServerBehavior,
    fetch_into,
    published_file,
    serving,
)

ROOT = Path(__file__).parents[3]
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
