"""How far it is, on one line of a terminal; anywhere else a line a stage."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

CELLS = 24
EVERY = 0.1  # seconds between two drawings
_CLEAR = "\r\x1b[K"


class ProgressBar:
    """Shows the stage that began last, for the stages overlap, and the last one is how far the whole is."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        """`quiet`: show nothing."""
        self._out = out
        self._quiet = quiet
        self._live = not quiet and out.isatty()
        self._stages: list[str] = []
        self._begin = time.monotonic()
        self._drawn = float("-inf")

    def show(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` are through the stage."""
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
        """Leave the line empty for what is said next."""
        if self._live and self._stages:
            print(_CLEAR, end="", file=self._out, flush=True)


def line(stage: str, done: int, total: int | None, seconds: float) -> str:
    """`encode [######------------------]  32/125   4 s`."""
    filled = CELLS * min(done, total) // total if total else 0
    bar = f"[{'#' * filled}{'-' * (CELLS - filled)}] " if total else ""
    return f"{stage:<9} {bar}{counted(done)}{f'/{counted(total)}' if total else ''}  {seconds:.0f} s"


def counted(number: int) -> str:
    """Frames as they are; bytes, of which there are more, in thousands or millions."""
    if number < 100_000:
        return str(number)
    return f"{number / 1e6:.1f}M" if number >= 1_000_000 else f"{number / 1e3:.0f}k"
