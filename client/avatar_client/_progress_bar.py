"""The progress on one line of a terminal; elsewhere one line per stage."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

CELLS = 24
EVERY = 0.1  # seconds between two drawings
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """Shows the stage that started last: the stages overlap, and the last one shows the progress of the whole."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        """Write to `out`; `quiet` shows nothing."""
        self._out = out
        self._quiet = quiet
        self._live = not quiet and out.isatty()
        self._stages: list[str] = []
        self._begin = time.monotonic()
        self._drawn = float("-inf")

    def show(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` have passed the stage."""
        if self._quiet:
            return
        new = stage not in self._stages
        if new:
            self._stages.append(stage)
        if not self._live:
            if new:
                print(stage, file=self._out, flush=True)
            return
        now = time.monotonic()
        whole = total is not None and done >= total
        if stage == self._stages[-1] and (new or whole or now - self._drawn >= EVERY):
            self._drawn = now
            width = shutil.get_terminal_size().columns - 1
            print(f"{_CLEAR}{line(stage, done, total, now - self._begin)[:width]}", end="", file=self._out, flush=True)

    def clear(self) -> None:
        """Clear the line for the next output."""
        if self._live and self._stages:
            print(_CLEAR, end="", file=self._out, flush=True)


def line(stage: str, done: int, total: int | None, seconds: float) -> str:
    """Return a line such as `encode [######------------------]  32/125   4 s`."""
    filled = CELLS * min(done, total) // total if total else 0
    bar = f"[{'#' * filled}{'-' * (CELLS - filled)}] " if total else ""
    return f"{stage:<9} {bar}{counted(done)}{f'/{counted(total)}' if total else ''}  {seconds:.0f} s"


def counted(number: int) -> str:
    """Return a number of frames as it is, and a number of bytes, which is larger, in thousands or millions."""
    if number < 100_000:
        return str(number)
    return f"{number / 1e6:.1f}M" if number >= 1_000_000 else f"{number / 1e3:.0f}k"
