"""Avatars that were prepared, kept in memory so that later sessions start at once."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass

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
from ..request import AvatarRequest
from ..resources.avatar_cache import file_digest
from .live_avatar import LiveAvatar
from .request import StreamRequest

ID_BYTES = 16


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

    An id is a secret: whoever has it may use the avatar. The same file with the same options has the same one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keep nothing yet, and at most `max_bytes`."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._ids: dict[str, str] = {}

    def get(self, identity: str) -> LiveAvatar:
        """Return an avatar by its id. Raises UnknownAvatar."""
        try:
            kept = self._kept[identity]
        except KeyError:
            raise UnknownAvatar from None
        self._kept.move_to_end(identity)
        return kept.avatar

    def find(self, key: str) -> tuple[str, LiveAvatar] | None:
        """Return the id and the avatar that was prepared from what `key` names, if it is kept."""
        identity = self._ids.get(key)
        return None if identity is None else (identity, self.get(identity))

    def add(self, key: str, avatar: LiveAvatar) -> str:
        """Keep an avatar and return its id; empty if it is larger than all of them may be."""
        if known := self.find(key):  # another session has prepared the same meanwhile
            return known[0]
        if avatar.size > self._max_bytes:
            return ""
        while self._bytes + avatar.size > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.avatar.size
            del self._ids[oldest.key]
        identity = secrets.token_urlsafe(ID_BYTES)
        self._kept[identity] = _Kept(key, avatar)
        self._ids[key] = identity
        self._bytes += avatar.size
        return identity


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
