"""Record in a browser what a page plays and shows: see tests/page/tap.js."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

Seconds = NDArray[np.float64]
TAP = Path(__file__).parents[1] / "page" / "tap.js"


@contextmanager
def tapped_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """Open a page whose sound and canvas are recorded; `options` are those of a context of Playwright."""
    context = browser.new_context(permissions=["microphone"], bypass_csp=True, **options)
    try:
        page = context.new_page()
        page.add_init_script(path=TAP)
        yield page
    finally:
        context.close()


@dataclass(frozen=True)
class Tap:
    """What a page played and showed.

    Attributes:
        clicks: seconds of the audio context at which each click was at the destination.
        flashes: seconds of `performance.now()` at which each white picture was drawn.
        clocks: for each refresh of the page: `performance.now()`, the two times of `getOutputTimestamp`,
            `currentTime`, `outputLatency`.
    """

    clicks: Seconds
    flashes: Seconds
    clocks: Seconds

    @classmethod
    def read(cls, page: Page) -> Tap:
        """Return what a tapped page has recorded until now."""
        seen = page.evaluate("window.tap")
        flashes = np.asarray(seen["flashes"], float) / 1000
        return cls(np.asarray(seen["clicks"], float), flashes, np.asarray(seen["clocks"], float))

    def heard(self) -> Seconds:
        """Return when each click is heard, in seconds of `performance.now()`: by the clocks read next to it."""
        context_time, performance_time = self.clocks[:, 1], self.clocks[:, 2]
        nearest = np.abs(context_time[:, None] - self.clicks[None]).argmin(axis=0)
        return performance_time[nearest] / 1000 + self.clicks - context_time[nearest]

    def differences(self, most: float) -> Seconds:
        """Return for each click by how many seconds its white picture comes after it; NaN: none within `most` seconds.

        A click of the last half second is left out: its picture may not be shown yet.
        """
        heard = self.heard()
        heard = heard[heard < self.clocks[-1, 0] / 1000 - 0.5]
        distances = self.flashes[None] - heard[:, None]
        distances[np.abs(distances) > most] = np.nan
        found = [row[~np.isnan(row)] for row in distances]
        return np.array([row[np.abs(row).argmin()] if row.size else np.nan for row in found])
