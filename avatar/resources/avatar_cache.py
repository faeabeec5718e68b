"""What is remembered of an avatar: where its face is, and how it looks before another background.

The key of an entry holds everything that it was computed from: the file's content, the options that matter, the
model (by its export) and this code. A new model or a new version of the code begins anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lipsync

from ..media.image import Picture
from ..options import Options
from .cache import Cache

Box = NDArray[np.int32]  # [4]
ImageWithAlpha = tuple[Picture, NDArray[np.uint8] | None]  # [H,W,3] BGR and, where there is one, its alpha channel [H,W]


class FaceBoxCache:
    """The corners of one avatar's face, frame by frame. Without a cache nothing is known, and nothing kept."""

    def __init__(self, kept: Cache | None = None, key: str = "") -> None:
        self._cache, self._key = (kept, f"faces {key}") if key else (None, "")

    async def get(self, count: int) -> list[Box | None] | None:
        """Of the first `count` frames, or of all where there are fewer; None where that is not known."""
        if self._cache is None:
            return None
        entry = await asyncio.to_thread(self._cache.get, self._key)
        if entry is None or (len(entry["found"]) < count and not entry["whole"]):
            return None
        pairs = zip(entry["corners"][:count], entry["found"][:count], strict=True)
        return [box if found else None for box, found in pairs]

    async def put(self, corners: Sequence[Box | None], *, complete: bool) -> None:
        """Those of the first frames; `whole`: there are no more."""
        if self._cache is None:
            return
        boxes = np.array([(0, 0, 0, 0) if box is None else box for box in corners], np.int32).reshape(-1, 4)
        found = np.array([box is not None for box in corners], bool)
        arrays = {"corners": boxes, "found": found, "whole": np.array(complete)}
        await asyncio.to_thread(self._cache.put, self._key, arrays)


class BackgroundCache:
    """A still before its new background."""

    def __init__(self, kept: Cache | None = None, key: str = "") -> None:
        self._cache, self._key = (kept, f"looks {key}") if key else (None, "")

    async def get(self) -> ImageWithAlpha | None:
        """The picture, or None where it is not known."""
        entry = await asyncio.to_thread(self._cache.get, self._key) if self._cache else None
        return None if entry is None else (entry["picture"], entry.get("alpha"))

    async def put(self, picture: Picture, alpha: NDArray[np.uint8] | None) -> None:
        """Remember it."""
        if self._cache:
            arrays = {"picture": picture} | ({} if alpha is None else {"alpha": alpha})
            await asyncio.to_thread(self._cache.put, self._key, arrays)


def cache_key(*parts: object) -> str:
    """A key of these parts and of the code that is running; empty where one of the parts is, and so not known."""
    return "" if "" in parts else " ".join(map(repr, (code_digest(), *parts)))


def transform_key(options: Options) -> tuple[object, ...]:
    """Of the options, those that decide which picture is worked on."""
    return (options.resize_factor, options.rotate, options.crop, options.max_height)


def file_digest(path: Path) -> str:
    """The file by its content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """This code by its content: what an older one computed may be wrong."""
    digest = hashlib.sha256()
    for package in (Path(__file__).parents[1], Path(str(lipsync.__file__)).parent):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
