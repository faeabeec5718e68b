"""Split an MP4 that is still being written into chunks that a player can show as they arrive."""

from __future__ import annotations

import struct

_BOX_HEAD = struct.Struct(">I4s")
_LONG_SIZE = struct.Struct(">Q")


class Fragments:
    """Split the bytes of a fragmented MP4 into whole fragments; pass the bytes of a WebM through unchanged.

    A chunk ends with an `mdat` box, so the first one holds all that a player needs to start (`ftyp`, `moov`) and the
    first frames. Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.8 (movie fragments).
    """

    def __init__(self, container: str) -> None:
        self._is_mp4 = container == "mp4"
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the chunks that are now complete."""
        self._buffer += data
        if not self._is_mp4:
            return [self.flush()] if self._buffer else []
        chunks: list[bytes] = []
        start = end = 0
        while (box := _box(self._buffer, end)) is not None:
            kind, end = box
            if kind == b"mdat":
                chunks.append(bytes(self._buffer[start:end]))
                start = end
        del self._buffer[:start]
        return chunks

    def flush(self) -> bytes:
        """Return the remaining bytes once all are fed: the index after the last fragment."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def _box(data: bytearray, offset: int) -> tuple[bytes, int] | None:
    """Return the kind and the end of the box at `offset`; None if the box is incomplete."""
    if offset + _BOX_HEAD.size > len(data):
        return None
    size, kind = _BOX_HEAD.unpack_from(data, offset)
    if size == 1:
        if offset + _BOX_HEAD.size + _LONG_SIZE.size > len(data):
            return None
        (size,) = _LONG_SIZE.unpack_from(data, offset + _BOX_HEAD.size)
    end = offset + size
    return (kind, end) if size >= _BOX_HEAD.size and end <= len(data) else None
