"""The progress bar of the command `avatar`: one line on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from avatar_client import _progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_redrawn() -> None:
    out = Terminal()
    bar = _progress_bar.ProgressBar(out)
    bar.show("detect", 0, None)
    bar.show("encode", 0, 100)
    bar.show("detect", 50, None)
    bar.show("encode", 100, 100)
    bar.clear()
    drawn = out.getvalue().split("\r\x1b[K")
    assert "\n" not in out.getvalue()
    assert [line.split()[0] for line in drawn if line] == ["detect", "video", "video"]
    assert "#" * _progress_bar.CELLS in drawn[-2] and drawn[-1] == ""


def test_other_outputs_get_one_line_per_stage() -> None:
    out = io.StringIO()
    bar = _progress_bar.ProgressBar(out)
    for n in range(5):
        bar.show("detect", n, None)
        bar.show("encode", n, 5)
    bar.clear()
    assert out.getvalue() == "detect\nencode\n"


def test_the_bar_is_as_long_as_the_share_that_is_done() -> None:
    assert _progress_bar.line("encode", 50, 100, 4.2) == f"video     [{'#' * 12}{'-' * 12}]  50/100  4 s"
    assert _progress_bar.line("upload", 3_210_000, 4_000_000, 1).endswith("] 3.2M/4.0M  1 s")
    assert _progress_bar.line("upload", 65_536, 4_000_000, 1).endswith("] 0.1M/4.0M  1 s")
    assert _progress_bar.line("odd", 7, 0, 1) == "odd       7  1 s"


def test_a_stage_without_progress_has_no_number_that_could_be_taken_for_one() -> None:
    assert _progress_bar.line("queue", 0, None, 0) == "queue     0 s"
    assert _progress_bar.line("speech", 178, 178, 0) == "speech    178 frames  0 s"
    waiting = _progress_bar.line("waiting", 12, None, 12)
    assert waiting.startswith("working   12 s  (") and "--server" in waiting
    assert _progress_bar.line("waiting", 12, None, 12, width=30) == "working   12 s"


@pytest.mark.parametrize("width", range(24, 100))
def test_a_narrow_terminal_shortens_the_bar_and_keeps_the_numbers(width: int) -> None:
    text = _progress_bar.line("encode", 30, 178, 12, width, left=59.6)
    assert len(text) <= width
    assert " 30/178  12 s" in text
    assert ("[" in text) == (width >= 10 + 13 + 3 + _progress_bar.MIN_CELLS)
    assert (", 60 s left" in text) == (width >= 10 + 13 + 3 + _progress_bar.CELLS + 11)


def test_the_time_that_is_left_is_that_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = Terminal(), [100.0]
    monkeypatch.setattr(_progress_bar, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setenv("COLUMNS", "80")
    bar = _progress_bar.ProgressBar(out)
    bar.show("speech", 100, 100)
    now[0] = 110.0
    bar.show("encode", 0, 100)
    now[0] = 115.0
    bar.show("encode", 25, 100)
    assert out.getvalue().endswith(" 25/100  15 s, 15 s left")
