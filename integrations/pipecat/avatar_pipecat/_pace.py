"""The pace at which frames are shown."""

from __future__ import annotations

import asyncio
import time

LEAD = 0.04  # seconds that speech is ahead of its time, so that the transport never waits for sound


class Pace:
    """Waits until the next frame is to be shown; where frames come late, those after them are later, too."""

    def __init__(self) -> None:
        """Start now."""
        self._due = 0.0
        self._was_speech = False

    async def wait(self, fps: float, *, is_speech: bool) -> None:
        """Wait for the time of the next frame."""
        now = time.monotonic()
        earliest = now - LEAD
        self._due = earliest if is_speech and not self._was_speech else max(self._due, earliest)
        self._was_speech = is_speech
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += 1 / fps
