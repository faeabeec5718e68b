"""The progress on one line of a terminal; elsewhere one line per stage."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

CELLS, MIN_CELLS = 24, 4  # of a bar; where there is no room for the least, there is none
EVERY = 0.1  # seconds between two drawings
ESTIMATE_AFTER = 2.0  # seconds of a stage after which the rest of it is estimated
_CLEAR = "\r\x1b[K"
# As people see it: the frames of `encode` are finished, lips and all; over HTTP nothing is received while the service
# works. `speech` says how many frames there will be, not that they are done.
_LABELS = {"encode": "video", "waiting": "working"}
_HINTS = {"waiting": "(the form shows no more; --server does)"}
_FACTS = {"speech": "frames"}


class ProgressBar:
    """Shows the stage that started last: the stages overlap, and the last one shows the progress of the whole."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        """Write to `out`; `quiet` shows nothing."""
        self._out = out
        self._quiet = quiet
        self._live = not quiet and out.isatty()
        self._starts: dict[str, tuple[float, int]] = {}  # when each stage started, and what was done then
        self._begin = time.monotonic()
        self._drawn = float("-inf")

    def show(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` have passed the stage."""
        if self._quiet:
            return
        now, new = time.monotonic(), stage not in self._starts
        if new:
            self._starts[stage] = (now, done)
        if not self._live:
            if new:
                print(stage, file=self._out, flush=True)
            return
        whole = total is not None and done >= total
        if stage == next(reversed(self._starts)) and (new or whole or now - self._drawn >= EVERY):
            self._drawn = now
            width = shutil.get_terminal_size().columns - 1
            left = self._left(stage, done, total, now)
            text = line(stage, done, total, now - self._begin, width, left)
            print(f"{_CLEAR}{text}", end="", file=self._out, flush=True)

    def clear(self) -> None:
        """Clear the line for the next output."""
        if self._live and self._starts:
            print(_CLEAR, end="", file=self._out, flush=True)

    def _left(self, stage: str, done: int, total: int | None, now: float) -> float | None:
        """Return the seconds that the stage still takes, by its speed so far; None where that is not known."""
        start, before = self._starts[stage]
        if total is None or done <= before or done >= total or now - start < ESTIMATE_AFTER:
            return None
        return (now - start) * (total - done) / (done - before)


def line(stage: str, done: int, total: int | None, seconds: float, width: int = 79, left: float | None = None) -> str:
    """Return a line such as `video     [######------------------]  32/125  4 s, 11 s left`, at most `width` long.

    Where the terminal is narrow, the bar gets shorter and the numbers stay.
    """
    head, time_text = f"{_LABELS.get(stage, stage):<9} ", f"{seconds:.0f} s"
    if not total or stage in _FACTS:
        number = f"{counted(done)} {_FACTS.get(stage, '')}".rstrip() + "  " if done and stage not in _HINTS else ""
        text = f"{head}{number}{time_text}"
        hinted = f"{text}  {_HINTS.get(stage, '')}".rstrip()
        return (hinted if len(hinted) <= width else text)[:width]
    of_all = counted(total)
    numbers = f"{counted(done, total):>{len(of_all)}}/{of_all}  {time_text}"
    rest = "" if left is None else f", {left:.0f} s left"
    room = width - len(head) - len(numbers) - len("[] ")
    if room < CELLS + len(rest):
        rest = ""
    cells = min(CELLS, room)
    filled = cells * min(done, total) // total
    bar = f"[{'#' * filled}{'-' * (cells - filled)}] " if cells >= MIN_CELLS else ""
    return f"{head}{bar}{numbers}{rest}"[:width]


def counted(number: int, of_all: int | None = None) -> str:
    """Return a number of frames as it is, and a number of bytes, which is larger, in thousands or millions.

    `of_all`: a larger number that has the same unit.
    """
    size = number if of_all is None else of_all
    if size < 100_000:
        return str(number)
    return f"{number / 1e6:.1f}M" if size >= 1_000_000 else f"{number / 1e3:.0f}k"
