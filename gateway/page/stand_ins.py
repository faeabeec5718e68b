"""Which models run on stand-in checkpoints: the page says so before the first video is made."""

from __future__ import annotations

import asyncio
import time

from avatar.errors import Unavailable
from avatar.inference.protocol import InferenceClient
from avatar.options import Generator

KEPT_SECONDS = 30.0  # however often the page is opened, Triton is asked as seldom as this
UNKNOWN_SECONDS = 3.0  # the same while it does not answer
LIMIT_SECONDS = 2.0  # a page does not wait longer for a Triton that does not answer


class StandIns:
    """The names of the models that run on stand-ins, at most `KEPT_SECONDS` old."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._read_again = -1.0
        self._names: list[str] | None = None

    async def read(self, models: InferenceClient) -> list[str] | None:
        """Return the names; None while the models do not answer."""
        async with self._lock:
            if time.monotonic() >= self._read_again:
                self._names = await _ask(models)
                kept = UNKNOWN_SECONDS if self._names is None else KEPT_SECONDS
                self._read_again = time.monotonic() + kept
            return self._names


async def _ask(models: InferenceClient) -> list[str] | None:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            infos = [await models.model_info(generator) for generator in Generator]
    except (Unavailable, TimeoutError):
        return None
    return list(dict.fromkeys(name for info in infos for name in info.stand_ins))
