"""Cache what is computed for an avatar: facts of its file, boxes of its face, a still with its background replaced.

The key of an entry holds everything that the entry was computed from: the content of the file, the options that matter,
the export of the model, and this code. So a new model or a new version of the code starts with an empty cache. A model
may be replaced while a job runs: an entry is only stored if its model is still the one of its key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import lipsync
from lipsync.arrays import Array, Box, Image

from ..options import Options
from .cache import Cache

ImageWithAlpha: TypeAlias = tuple[Image, NDArray[np.uint8] | None]  # [H,W,3] BGR, and its alpha channel [H,W] if any

StillValid: TypeAlias = Callable[[], Awaitable[bool]]  # whether the models are still those that a key names


async def always() -> bool:
    """Return that the models are those of the key."""
    return True


class _Entry:
    """The arrays of one key. Without a cache or a key it is empty and stores nothing."""

    def __init__(self, store: Cache | None, kind: str, key: str, valid: StillValid = always) -> None:
        self._cache, self._key = (store, f"{kind} {key}") if key else (None, "")
        self._valid = valid

    async def get(self, holds: Callable[[Mapping[str, Array]], bool], what: str) -> Mapping[str, Array] | None:
        """Return the arrays, or None if they are not cached. An entry that does not hold `what` is removed."""
        if self._cache is None:
            return None
        arrays = await asyncio.to_thread(self._cache.get, self._key)
        if arrays is None or holds(arrays):
            return arrays
        await self.discard(f"it does not hold {what}")
        return None

    async def put(self, arrays: Mapping[str, Array]) -> None:
        """Store the arrays."""
        if self._cache is not None and await self._valid():
            await asyncio.to_thread(self._cache.put, self._key, arrays)

    async def discard(self, reason: str) -> None:
        """Remove an entry that is of no use."""
        if self._cache is not None:
            await asyncio.to_thread(self._cache.discard, self._key, reason)


class FaceBoxCache:
    """The boxes of one avatar's face by frame, as detected. Without a cache or a key it is empty and stores nothing."""

    def __init__(self, store: Cache | None = None, key: str = "", valid: StillValid = always) -> None:
        self._entry = _Entry(store, "faces", key, valid)

    async def get(self, count: int) -> list[Box | None] | None:
        """Return the boxes INT32 [4] of the first `count` frames, or of all frames if the video has fewer.

        A frame without a face has None; the whole is None if not all of these frames are cached.
        """
        entry = await self._entry.get(_are_boxes, "the boxes of a face")
        if entry is None or (len(entry["found"]) < count and not entry["whole"]):
            return None
        pairs = zip(entry["corners"][:count], entry["found"][:count], strict=True)
        return [box if found else None for box, found in pairs]

    async def put(self, boxes: Sequence[Box | None], *, complete: bool) -> None:
        """Store the boxes of the first `len(boxes)` frames; `complete` says that the video ends there."""
        corners = np.array([(0, 0, 0, 0) if box is None else box for box in boxes], np.int32).reshape(-1, 4)
        found = np.array([box is not None for box in boxes], bool)
        await self._entry.put({"corners": corners, "found": found, "whole": np.array(complete)})


class BackgroundCache:
    """One still with one background. Without a cache or a key it is empty and stores nothing."""

    def __init__(self, store: Cache | None = None, key: str = "", valid: StillValid = always) -> None:
        self._entry = _Entry(store, "background", key, valid)

    async def get(self, width: int, height: int) -> ImageWithAlpha | None:
        """Return the image of this size and its alpha channel, or None if it is not cached."""
        entry = await self._entry.get(lambda arrays: _is_image(arrays, width, height), "the image")
        return None if entry is None else (entry["image"], entry.get("alpha"))

    async def put(self, image: Image, alpha: NDArray[np.uint8] | None) -> None:
        """Store the image UINT8 [H,W,3] and its alpha channel UINT8 [H,W]."""
        await self._entry.put({"image": image} | ({} if alpha is None else {"alpha": alpha}))


class ByteCache:
    """A few bytes that were computed from one file. Without a cache or a key it is empty and stores nothing."""

    def __init__(self, store: Cache | None = None, key: str = "") -> None:
        self._entry = _Entry(store, "bytes", key)

    async def get(self) -> bytes | None:
        """Return the bytes, or None if they are not cached."""
        entry = await self._entry.get(_are_bytes, "bytes")
        return None if entry is None else entry["data"].tobytes()

    async def put(self, data: bytes) -> None:
        """Store the bytes."""
        await self._entry.put({"data": np.frombuffer(data, np.uint8)})

    async def discard(self, reason: str) -> None:
        """Remove bytes that are of no use."""
        await self._entry.discard(reason)


def _are_boxes(entry: Mapping[str, Array]) -> bool:
    """Return whether an entry is one that `FaceBoxCache` stored."""
    if entry.keys() != {"corners", "found", "whole"}:
        return False
    count = len(entry["found"]) if entry["found"].ndim == 1 else 0
    return (
        count > 0
        and _is(entry["corners"], np.int32, (count, 4))
        and _is(entry["found"], np.bool_, (count,))
        and _is(entry["whole"], np.bool_, ())
    )


def _is_image(entry: Mapping[str, Array], width: int, height: int) -> bool:
    """Return whether an entry is one that `BackgroundCache` stored for an image of this size."""
    if entry.keys() - {"alpha"} != {"image"}:
        return False
    alpha = entry.get("alpha")
    is_whole = _is(entry["image"], np.uint8, (height, width, 3))
    return is_whole and (alpha is None or _is(alpha, np.uint8, (height, width)))


def _are_bytes(entry: Mapping[str, Array]) -> bool:
    """Return whether an entry is one that `ByteCache` stored."""
    return entry.keys() == {"data"} and _is(entry["data"], np.uint8, (entry["data"].size,))


def _is(array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> bool:
    return array.dtype == dtype and array.shape == shape


def cache_key(*parts: object) -> str:
    """Return a key of these parts and of the running code; empty if a part is empty, which means that it is unknown."""
    return "" if "" in parts else " ".join(map(repr, (code_digest(), *parts)))


def transform_key(options: Options) -> tuple[object, ...]:
    """Return the options that decide which image is worked on."""
    return (options.resize_factor, options.rotate, options.crop, options.max_height)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Return the digest of the code of `avatar` and `lipsync`: what another version computed may be wrong."""
    return source_digest([Path(__file__).parents[1], Path(str(lipsync.__file__)).parent])


def source_digest(packages: Iterable[Path]) -> str:
    """Return the SHA-256 of all Python files in these folders and the folders inside them, in hexadecimal."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
