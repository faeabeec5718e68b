"""Fill sections of an ELF file with zeros in place: a smaller archive, and nothing else in the file moves.

`strip` would do more, but it damages binaries whose libraries were renamed, as those of wheels are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_NOBITS, _ALLOCATED = 8, 2  # SHT_NOBITS, SHF_ALLOC
_HEADER = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Section:
    """A section: its name, where its bytes are in the file, and whether a process maps them."""

    name: str
    offset: int
    size: int
    mapped: bool


def is_elf(data: bytes | bytearray) -> bool:
    """Return whether these are the bytes of a 64-bit ELF file."""
    return data[: len(_MAGIC)] == _MAGIC


def sections(data: bytes | bytearray) -> list[Section]:
    """Return the sections that have bytes in the file."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [_HEADER.unpack_from(data, table + number * size) for number in range(count)]
    start = headers[names][4]
    found = []
    for name, kind, flags, _, offset, length, *_ in headers:
        if kind not in (0, _NOBITS):
            text = bytes(data[start + name : data.index(b"\0", start + name)]).decode()
            found.append(Section(text, offset, length, bool(flags & _ALLOCATED)))
    return found


def without_symbols(data: bytes, also: str = "") -> bytes:
    """Return the file with zeros in what no process maps (symbols, debug information) but the names of the sections.

    Args:
        data: the file.
        also: name of one more section.
    """
    kept = bytearray(data)
    for section in sections(data):
        if section.name == also or not (section.mapped or section.name == ".shstrtab"):
            kept[section.offset : section.offset + section.size] = bytes(section.size)
    return bytes(kept)


def shrink(path: Path, also: str = "") -> None:
    """Do so with a file, unless it is no ELF file."""
    data = path.read_bytes()
    if is_elf(data):
        path.write_bytes(without_symbols(data, also))
