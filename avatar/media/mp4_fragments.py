"""Split an MP4 that is still being written into chunks that a player can show as they arrive."""

from __future__ import annotations

import struct

_BOX_HEAD = struct.Struct(">I4s")
_SHORT_SIZE, _LONG_SIZE = struct.Struct(">I"), struct.Struct(">Q")
_TABLE_HEAD = struct.Struct(">B7xII")  # version; flags and track; sizes of the numbers of an entry; entries


class Fragments:
    """Split the bytes of a fragmented MP4 into whole fragments; pass the bytes of a WebM through unchanged.

    A chunk ends with an `mdat` box, so the first one holds all that a player needs to start (`ftyp`, `moov`) and the
    first frames. Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.8 (movie fragments).
    """

    def __init__(self, container: str, extra: bytes = b"") -> None:
        """Prepare for one result.

        Args:
            container: `mp4` or `webm`.
            extra: a box that is inserted into an MP4, after its header.
        """
        self._is_mp4 = container == "mp4"
        self._extra = extra
        self._inserted = 0  # bytes
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
            if kind == b"moov" and self._extra:
                self._buffer[end:end] = self._extra
                self._inserted, self._extra = len(self._extra), b""
            if kind == b"mdat":
                chunks.append(bytes(self._buffer[start:end]))
                start = end
        del self._buffer[:start]
        return chunks

    def flush(self) -> bytes:
        """Return the remaining bytes once all are fed: the index after the last fragment."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return moved_index(rest, self._inserted) if self._inserted else rest


def moved_index(data: bytes, distance: int) -> bytes:
    """Return the boxes at the end of a fragmented MP4, with the positions of the fragments moved by `distance` bytes.

    The index (`mfra`) has a table (`tfra`) for each track; an entry is a time and the position of a fragment in the
    file, both of 4 or 8 bytes, and three numbers inside of the fragment. Source: ISO/IEC 14496-12, 8.8.9 to 8.8.11.
    """
    moved = bytearray(data)
    at = 0
    while (box := _box(moved, at)) is not None:
        kind, end = box
        if kind == b"tfra":
            _move_table(moved, at + _BOX_HEAD.size, distance)
        at = at + _BOX_HEAD.size if kind == b"mfra" else end  # the tables are inside of `mfra`
    return bytes(moved)


def _move_table(data: bytearray, at: int, distance: int) -> None:
    version, sizes, count = _TABLE_HEAD.unpack_from(data, at)
    position = _LONG_SIZE if version == 1 else _SHORT_SIZE
    numbers = sum((sizes >> shift & 3) + 1 for shift in (0, 2, 4))  # bytes of the three numbers
    at += _TABLE_HEAD.size
    for _ in range(count):
        at += position.size  # the time
        position.pack_into(data, at, position.unpack_from(data, at)[0] + distance)
        at += position.size + numbers


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
