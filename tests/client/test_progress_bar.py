"""The progress bar of the command `avatar`: one line on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import io

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
    assert [line.split()[0] for line in drawn if line] == ["detect", "encode", "encode"]
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
    assert _progress_bar.line("encode", 50, 100, 4.2) == f"encode    [{'#' * 12}{'-' * 12}] 50/100  4 s"
    assert _progress_bar.line("queue", 0, None, 0) == "queue     0  0 s"
    assert _progress_bar.line("upload", 3_210_000, 4_000_000, 1).endswith("] 3.2M/4.0M  1 s")
    assert _progress_bar.line("odd", 7, 0, 1) == "odd       7  1 s"
