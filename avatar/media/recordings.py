"""Find the recordings of a file that consists of several files in a row. ffmpeg alone would read only the first one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

_RIFF = struct.Struct("<4sI4s")  # magic, size of what follows the size, type
_OGG_PAGE = struct.Struct("<4sBB20xB")  # magic, version, flags, number of segments
MAX_RECORDINGS = 100  # each costs a run of ffmpeg
MAX_PAGES = 500_000  # of an Ogg file that are searched; 2 GB in pages of the usual size
_FIRST_PAGE = 2  # flag of the first page of a stream


def find_recordings(path: Path) -> list[range]:
    """Return the byte range of each recording of the file; if there is only one, or the type is another: the whole.

    They are WAV files in a row, and chained Ogg files (RFC 3533, section 4). The parameters of each may differ. At most
    MAX_RECORDINGS + 1 are returned.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        found = _wav_starts(file, size) if magic == b"RIFF" else _ogg_starts(file) if magic == b"OggS" else iter(())
        starts = list(islice(found, MAX_RECORDINGS + 1)) or [0]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


def _wav_starts(file: BinaryIO, size: int) -> Iterator[int]:
    """Yield where each WAV file starts. A size of 0 or of all ones (a stream's) means that it is the last one."""
    start = 0
    while start < size:
        file.seek(start)
        head = file.read(_RIFF.size)
        if len(head) < _RIFF.size:
            return
        magic, length, kind = _RIFF.unpack(head)
        if (magic, kind) != (b"RIFF", b"WAVE"):
            return
        yield start
        if length in (0, 0xFFFFFFFF):
            return
        start += 8 + length + length % 2 * _is_padded(file, start + 8 + length)


def _is_padded(file: BinaryIO, end: int) -> bool:
    """Return whether a chunk of odd size, which should have a padding byte, has one: the next file follows it."""
    file.seek(end)
    return file.read(4) != b"RIFF"


def _ogg_starts(file: BinaryIO) -> Iterator[int]:
    """Yield where each link of the chain starts: at the first page of a stream that follows another page."""
    start, was_first = 0, False
    for _ in range(MAX_PAGES):
        file.seek(start)
        head = file.read(_OGG_PAGE.size)
        if len(head) < _OGG_PAGE.size:
            return
        magic, _, flags, segments = _OGG_PAGE.unpack(head)
        if magic != b"OggS":
            return
        is_first = bool(flags & _FIRST_PAGE)
        if is_first and not was_first:
            yield start
        was_first = is_first
        start += _OGG_PAGE.size + segments + sum(file.read(segments))
