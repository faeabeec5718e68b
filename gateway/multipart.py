"""Read a multipart form while it arrives, and write its files straight into the request's folder.

Starlette's form parser would spool the files elsewhere first, and check their size only afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from avatar.errors import InvalidField, TooLarge
from avatar.form.parse import FILES, MAX_TEXT_BYTES, TEXTS, Form, Upload

from .errors import MalformedForm, malformed
from .preamble import Preamble
from .unknown_fields import unknown_field

_MAX_PARTS = 100  # fields per form; about twenty are documented
_MAX_HEADERS = 100  # per part
_MAX_HEADER_BYTES = 16 * 1024  # per header of a part
_PLAIN_ENCODINGS = (b"", b"binary", b"8bit", b"7bit")  # a part in any other would have to be decoded
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')
_FILE_NAME = re.compile(rb";\s*filename\*?\s*=", re.IGNORECASE)  # `filename*` as well: some clients send it alone
_FLUSH_BYTES = 1024 * 1024  # bytes to collect before a thread writes them


@dataclass(frozen=True)
class KnownFields:
    """The fields of a form: the file name of each file field, and the largest size of each text field in bytes."""

    files: Mapping[str, str]
    texts: Mapping[str, int]

    def __contains__(self, name: str) -> bool:
        return name in self.files or name in self.texts

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return (*self.files, *self.texts)


AVATAR_FORM = KnownFields(FILES, dict.fromkeys(TEXTS, MAX_TEXT_BYTES))


class _Part:
    """The field that is being read."""

    def __init__(self, name: str, is_file: bool) -> None:
        self.name = name
        self.is_file = is_file
        self.size = 0
        self.text = bytearray()


class FormReader:
    """Turns the bytes of a body into a Form; independent of HTTP, and only `flush` writes to the disk.

    Unknown fields are skipped, or rejected with `strict`. A part of a file field is a file if it has a filename, or a
    Content-Type that is not text: libraries that send a buffer may leave the filename out.

    Attributes:
        ignored: the names of the skipped fields.

    Args:
        boundary: of the multipart body.
        folder: the request's folder, for the uploaded files.
        max_file_bytes: size limit of each file.
        strict: whether to reject a form with an unknown field.
        fields: the known fields; by default, those of the form of `POST /`.

    Raises:
        MalformedForm: the boundary is invalid.
    """

    def __init__(
        self,
        boundary: bytes,
        folder: Path,
        max_file_bytes: int,
        *,
        strict: bool = False,
        fields: KnownFields = AVATAR_FORM,
    ) -> None:
        self._strict = strict
        self._fields = fields
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self.ignored: list[str] = []
        self._form: dict[str, str | Upload] = {}
        self._unwritten: list[tuple[Path, bytearray]] = []
        self._unwritten_bytes = 0
        self._header = (bytearray(), bytearray())  # name and value of the header being read
        self._headers: dict[bytes, bytes] = {}
        self._received = 0
        self._part: _Part | None = None  # None: skip this field
        self._parts = 0
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER_BYTES,
            )
        except FormParserError as error:
            raise malformed("its boundary is too long") from error
        self._preamble = Preamble(boundary)

    @property
    def should_flush(self) -> bool:
        """Whether enough data is collected to be worth a call in a thread."""
        return self._unwritten_bytes >= _FLUSH_BYTES

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. Raises MalformedForm, TooLarge and InvalidField (also for a duplicate field)."""
        self._received += len(data)
        data = self._preamble.feed(data)
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            place = self._received - len(data) + max(0, error.offset)
            raise malformed(
                f"it is damaged, or a part has more than {_MAX_HEADERS} headers, at byte {place}"
            ) from error

    def flush(self) -> None:
        """Write the collected data to the disk. This call blocks, so run it in a thread."""
        for path, data in self._unwritten:
            with path.open("ab") as file:
                file.write(data)
        self._unwritten.clear()
        self._unwritten_bytes = 0

    def finish(self) -> Form:
        """Return the form, after its last byte and the last flush. Raises MalformedForm when bytes are missing."""
        if not self._complete:
            raise malformed("it ends before its closing boundary")
        return self._form

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise MalformedForm(f"the form has too many fields; at most {_MAX_PARTS} are allowed")

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        if b"name" not in options:
            raise malformed("a part has no name")
        name = options[b"name"].decode("utf-8", "replace")
        if name in self._form:  # ambiguous: either of the two could be meant
            raise InvalidField(name, "duplicate field; send it once")
        known = name in self._fields
        if not known:
            if self._strict:
                raise unknown_field(name, self._fields.names)
            self.ignored.append(name)
        if known and self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
            raise InvalidField(name, "its Content-Transfer-Encoding is not supported; send the bytes as they are")
        has_file_name = _FILE_NAME.search(_QUOTED.sub(b"", disposition)) is not None
        is_file = has_file_name or (name in self._fields.files and self._is_binary())
        self._part = _Part(name, is_file) if known else None

    def _is_binary(self) -> bool:
        """Return whether the part states a type that is not text."""
        kind, _ = parse_options_header(self._headers.get(b"content-type", b""))
        return b"/" in kind and not kind.startswith(b"text/")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part is None:
            return
        part.size += end - start
        if part.is_file:
            if part.size > self._max_file_bytes:
                raise TooLarge(f"{part.name}: the file is larger than {self._max_file_bytes} bytes")
            if part.name in self._fields.files:
                self._append(self._folder / self._fields.files[part.name], data[start:end])
        elif part.name in self._fields.files:
            part.text += data[start : start + 1]  # enough to tell it from an empty field
        else:
            if part.size > self._fields.texts[part.name]:
                raise InvalidField(part.name, f"the value is longer than {self._fields.texts[part.name]} bytes")
            part.text += data[start:end]

    def _append(self, path: Path, data: bytes) -> None:
        if not self._unwritten or self._unwritten[-1][0] != path:
            self._unwritten.append((path, bytearray()))
        self._unwritten[-1][1].extend(data)
        self._unwritten_bytes += len(data)

    def _on_part_end(self) -> None:
        part = self._part
        if part is None:
            return
        if part.is_file:  # `avatar.form` rejects a file in a text field; none of its data was written
            self._form[part.name] = Upload(self._folder / self._fields.files.get(part.name, part.name), part.size)
        else:
            self._form[part.name] = part.text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._complete = True
