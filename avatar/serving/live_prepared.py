"""Avatars that were prepared, kept so that later sessions start at once: in memory, and on disk for all processes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lipsync.arrays import Array
from lipsync.tensors import (
    BACKGROUND,
    BACKGROUND_FILE,
    FACE_FILE,
    FACE_TYPE,
    NOT_LIVE,
    OPTIONS,
    PREPARED_AVATAR,
)

from ..errors import ClientError, InvalidField
from ..inference.protocol import ModelInfo
from ..options import Blend, ExtendMode, Generator, Options
from ..request import AvatarRequest
from ..resources.avatar_cache import cache_key, file_digest
from ..resources.cache import Cache, open_cache
from .live_avatar import LiveAvatar
from .request import StreamRequest

ID_BYTES = 16
NO_FACE = np.zeros(4, np.int32)  # in place of the box of an image without a face


class UnknownAvatar(ClientError):
    """No avatar is kept under this id."""

    status = 404
    code = "avatar_not_found"

    def __init__(self) -> None:
        super().__init__(f"{PREPARED_AVATAR}: no avatar is kept under this id (any more); send {FACE_FILE}")


@dataclass(frozen=True)
class _Kept:
    key: str
    avatar: LiveAvatar


class PreparedAvatars:
    """Avatars by their ids, and by what they were prepared from; the least recently used ones are forgotten first.

    An id is a secret: any caller that has it may use the avatar. The same file with the same options has the same one
    for as long as it is in memory.
    """

    def __init__(self, max_bytes: int, shared: Cache | None = None) -> None:
        """Keep at most `max_bytes` in memory, and what fits into `shared` there."""
        self._max_bytes, self._bytes, self._shared = max_bytes, 0, shared
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._ids: dict[str, str] = {}

    async def get(self, identity: str) -> LiveAvatar:
        """Return an avatar by its id, whichever process has prepared it. Raises UnknownAvatar."""
        if kept := self._kept.get(identity):
            self._kept.move_to_end(identity)
            return kept.avatar
        found = await asyncio.to_thread(self._shared.get, _shared_key(identity)) if self._shared else None
        if found is None:
            raise UnknownAvatar
        avatar = from_arrays(found)
        self._keep(identity, _Kept(identity, avatar))
        return avatar

    def find(self, key: str) -> tuple[str, LiveAvatar] | None:
        """Return the id and the avatar that was prepared from what `key` names, if it is in memory."""
        identity = self._ids.get(key, "")
        if kept := self._kept.get(identity):
            self._kept.move_to_end(identity)
            return identity, kept.avatar
        return None

    async def add(self, key: str, avatar: LiveAvatar) -> str:
        """Keep an avatar and return its id; empty if it is larger than all of them may be."""
        if known := self.find(key):  # another session has prepared the same meanwhile
            return known[0]
        if avatar.size > self._max_bytes:
            return ""
        identity = secrets.token_urlsafe(ID_BYTES)
        self._keep(identity, _Kept(key, avatar))
        if self._shared:
            await asyncio.to_thread(_store, self._shared, identity, avatar)
        return identity

    def _keep(self, identity: str, kept: _Kept) -> None:
        if identity in self._kept or kept.avatar.size > self._max_bytes:
            return
        while self._bytes + kept.avatar.size > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.avatar.size
            del self._ids[oldest.key]
        self._kept[identity] = kept
        self._ids[kept.key] = identity
        self._bytes += kept.avatar.size


def open_shared(folder: Path, max_bytes: int) -> Cache | None:
    """Return the avatars of all processes in a folder of the cache; None where it cannot be used."""
    return open_cache(folder / "live-avatars", max_bytes, memory_share=0)  # what is used is in memory as an avatar


def to_arrays(avatar: LiveAvatar) -> dict[str, Array]:
    """Return all that a session needs of an avatar as arrays."""
    options = {"model": avatar.options.model, "blend": avatar.options.blend, "extend": avatar.options.extend}
    about = {"fps": str(avatar.fps), "stand_ins": avatar.stand_ins, **{k: v.value for k, v in options.items()}}
    return {
        "images": np.stack(avatar.images),
        "boxes": np.stack([NO_FACE if box is None else box for box in avatar.boxes]),
        "crops": avatar.crops,
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }


def from_arrays(arrays: Mapping[str, Array]) -> LiveAvatar:
    """Return the avatar of `to_arrays`."""
    about = json.loads(arrays["about"].tobytes())
    options = Options(model=Generator(about["model"]), blend=Blend(about["blend"]), extend=ExtendMode(about["extend"]))
    boxes = [box if box.any() else None for box in arrays["boxes"]]
    fps, stand_ins = Fraction(about["fps"]), tuple(about["stand_ins"])
    return LiveAvatar(list(arrays["images"]), boxes, arrays["crops"], fps, options, stand_ins)


def _store(shared: Cache, identity: str, avatar: LiveAvatar) -> None:
    shared.put(_shared_key(identity), to_arrays(avatar))


def _shared_key(identity: str) -> str:
    return cache_key("live avatar", identity)


def avatar_key(request: AvatarRequest, info: ModelInfo) -> str:
    """Return what an avatar is prepared from: the content of its files, the options and the networks."""
    background = request.background_file and file_digest(request.background_file)
    files = (file_digest(request.face_path), request.is_still, background)
    return repr((files, request.background, request.options, info.stand_ins, info.detector, info.segmenter))


def check_only_avatar(request: StreamRequest) -> None:
    """Raise InvalidField for a first request that names a prepared avatar and also describes one."""
    if FACE_FILE in request.inputs:
        raise InvalidField(PREPARED_AVATAR, f"send {PREPARED_AVATAR} or {FACE_FILE}, not both")
    described = {FACE_TYPE, BACKGROUND, BACKGROUND_FILE, *OPTIONS} - NOT_LIVE
    for name in sorted(described & request.inputs.keys()):
        raise InvalidField(name, f"a prepared avatar has the options of its preparation; send {FACE_FILE} with others")
