"""Bring the start of a multipart body into the one form that `python_multipart` accepts. Pure."""

from __future__ import annotations

import re

from .errors import malformed

MAX_PREAMBLE_BYTES = 64 * 1024  # text before the first boundary, which RFC 2046 allows
_MAX_BLANKS = 256  # after the first boundary
_LINE_END = re.compile(rb"--|[ \t]*(\r?\n)")
_PERHAPS_LINE_END = re.compile(rb"-|[ \t]*\r?")


class Preamble:
    """Drops the text before the first boundary, and blanks after it.

    Args:
        boundary: of the multipart body.
    """

    def __init__(self, boundary: bytes) -> None:
        self._boundary = b"--" + boundary
        self._buffer = bytearray()
        self._dropped = 0
        self._passed = False

    def feed(self, data: bytes) -> bytes:
        """Return what the parser has to see of these bytes.

        Raises:
            MalformedForm: no boundary is found, or its line ends with LF only.
        """
        if self._passed:
            return data
        self._buffer += data
        start = 0
        while (at := self._buffer.find(self._boundary, start)) >= 0 and self._dropped + at <= MAX_PREAMBLE_BYTES:
            after = at + len(self._boundary)
            rest = bytes(self._buffer[after : after + _MAX_BLANKS])
            begins_line = self._dropped + at == 0 or self._buffer[at - 1 : at] == b"\n"
            if begins_line and (end := _LINE_END.match(rest)):
                return self._pass(after, end)
            if begins_line and len(rest) < _MAX_BLANKS and _PERHAPS_LINE_END.fullmatch(rest):
                self._drop(max(0, at - 1))
                return b""
            start = at + 1
        self._drop(len(self._buffer) - len(self._boundary))  # a part of a boundary may be there, and the byte before it
        return b""

    def _pass(self, after: int, end: re.Match[bytes]) -> bytes:
        if end[1] == b"\n":
            raise malformed("its lines end with LF; end them with CR and LF")
        self._passed = True
        line_end = end[1] or end[0]
        return self._boundary + line_end + bytes(self._buffer[after + end.end() :])

    def _drop(self, size: int) -> None:
        if size <= 0:
            return
        self._dropped += size
        if self._dropped > MAX_PREAMBLE_BYTES:
            raise malformed(f"its first {MAX_PREAMBLE_BYTES} bytes do not contain the boundary of its Content-Type")
        del self._buffer[:size]
