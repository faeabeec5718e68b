"""The reason that is given for the end of a server: its own last words, not an old line of its log."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from embedded.last_words import describe_end, last_words

OLD = 'E1127 20:38:41.971180 1 shared_memory_manager.cc:12] "Error: Failed to initialize NVML"\n'
ORDINARY = "I1127 20:39:41.971228 1 model_lifecycle.cc:839] \"successfully loaded 'detect_faces'\"\n"
CRASH = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n  what():  boost\n"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (OLD + ORDINARY, ""),
        (ORDINARY + OLD, "Error: Failed to initialize NVML"),
        (OLD + ORDINARY + CRASH, CRASH.replace("\n  ", "; ").replace("  ", " ").strip()),
        (ORDINARY + "Signal (11) received.\n 0# 0x000055\n", "Signal (11) received."),
        ("", ""),
    ],
)
def test_last_words_follow_the_last_ordinary_line(log: str, words: str) -> None:
    assert last_words(log) == words


def test_a_killed_server_has_no_words(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(ORDINARY + OLD)
    text = describe_end(-signal.SIGKILL, tmp_path / "log")
    assert text.startswith("signal 9: ")
    assert "NVML" not in text


def test_words_from_before_the_server_was_ready_are_not_its_last(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(OLD)
    assert describe_end(1, tmp_path / "log", len(OLD)) == "exit status 1"


def test_a_missing_log_is_no_error(tmp_path: Path) -> None:
    assert describe_end(-signal.SIGABRT, tmp_path / "log") == "signal 6"
