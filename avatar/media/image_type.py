"""Recognize image files by their content."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 512  # enough for every mark, and for the brands of an ISO file
MAX_PREFIX = 64  # bytes before the image that are skipped
_PREFIX = b"\r\n\t \xef\xbb\xbf"  # line breaks, blanks and the byte order mark that scripts put before an upload
JPEG_MARK = b"\xff\xd8\xff"
_MARKS = (JPEG_MARK, b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
# Brands of ISO image files (ISO/IEC 23008-12, annex B; AVIF 1.1, section 6), and of movies.
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ANY_CODEC = frozenset({b"mif1", b"mif2", b"msf1", b"miaf", b"1pic"})
IMAGE_BRANDS = HEIF_BRANDS | AVIF_BRANDS | _ANY_CODEC
_MOVIE_BRANDS = (b"iso", b"mp4", b"qt  ", b"M4V", b"3g", b"dash", b"cmf", b"avc1")


def is_image(path: Path) -> bool:
    """Return whether the file starts as an image file does, whatever its name. GIF counts as an image."""
    return _is_image(read_head(path)[0])


def is_gif(path: Path) -> bool:
    """Return whether the file is a GIF, which may be meant as an image or as a video."""
    return read_head(path)[0].startswith(b"GIF8")


def read_head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of the file, and where it starts: after line breaks, blanks and a byte order mark.

    They are skipped only before an image.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    rest = head.lstrip(_PREFIX)
    skipped = len(head) - len(rest)
    return (rest, skipped) if 0 < skipped <= MAX_PREFIX and _is_image(rest) else (head, 0)


def brands(head: bytes) -> list[bytes]:
    """Return the brands of an ISO file, the major one first; none for another file."""
    if head[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]


def _is_image(head: bytes) -> bool:
    if head.startswith(_MARKS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    major, *compatible = brands(head) or [b""]
    if major in IMAGE_BRANDS:
        return True
    is_movie = any(brand.startswith(_MOVIE_BRANDS) for brand in (major, *compatible))
    return not is_movie and not IMAGE_BRANDS.isdisjoint(compatible)
