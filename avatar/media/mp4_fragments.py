"""A file cut where it may be cut, while it is being written: pieces that a player can show as they come."""

from __future__ import annotations

import struct

_HEAD = struct.Struct(">I4s")
_LONG = struct.Struct(">Q")


class Fragments:
    """Bytes of a fragmented mp4 in, whole fragments out; of a WebM, the bytes as they are.

    A piece ends with an `mdat` box, so the first one holds all that a player needs (`ftyp`, `moov`) and the first
    pictures. Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.8 (movie fragments).
    """

    def __init__(self, container: str) -> None:
        self._is_mp4 = container == "mp4"
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that are whole now."""
        self._held += data
        if not self._is_mp4:
            return [self.rest()] if self._held else []
        pieces: list[bytes] = []
        start = end = 0
        while (box := _box(self._held, end)) is not None:
            kind, end = box
            if kind == b"mdat":
                pieces.append(bytes(self._held[start:end]))
                start = end
        del self._held[:start]
        return pieces

    def rest(self) -> bytes:
        """What is left when there is no more to feed: the index behind the last fragment."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


def _box(data: bytearray, offset: int) -> tuple[bytes, int] | None:
    """Kind and end of the box at `offset`; None where it is not whole yet."""
    if offset + _HEAD.size > len(data):
        return None
    size, kind = _HEAD.unpack_from(data, offset)
    if size == 1:
        if offset + _HEAD.size + _LONG.size > len(data):
            return None
        (size,) = _LONG.unpack_from(data, offset + _HEAD.size)
    end = offset + size
    return (kind, end) if size >= _HEAD.size and end <= len(data) else None
