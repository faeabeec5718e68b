"""A multipart form, read piece by piece: its two files go straight into the request's folder.

Starlette's form parser would spool both files elsewhere first, and look at their size when it is too late.
"""

from __future__ import annotations

from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from avatar.errors import InvalidField, TooLarge
from avatar.form.parse import FILES, TEXT_BYTES, TEXTS, TOO_LONG, Form, Upload

from .errors import MalformedForm

_NAME_SHOWN = 40  # characters of an unknown field's name that its error repeats
_PARTS = 100  # fields of one form; the contract has some twenty
_FLUSH_BYTES = 1024 * 1024  # what is gathered before a thread is asked to write it


class _Part:
    """One field while it is read."""

    def __init__(self, name: str, is_file: bool) -> None:
        self.name = name
        self.is_file = is_file
        self.size = 0
        self.text = bytearray()


class FormReader:
    """Turns the bytes of a body into a Form; knows nothing of HTTP, and touches the disk in `flush` only.

    Fields that the contract does not know are read past and kept nowhere, or refused where it is `strict`.
    """

    def __init__(self, boundary: bytes, folder: Path, max_file_bytes: int, *, strict: bool = False) -> None:
        self._strict = strict
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._form: dict[str, str | Upload] = {}
        self._unwritten: list[tuple[Path, bytearray]] = []
        self._gathered = 0
        self._header = (bytearray(), bytearray())  # name and value of the header being read
        self._disposition = b""
        self._part: _Part | None = None  # None: a field to read past
        self._parts = 0
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begins,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._header_ends,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data_comes,
                    "on_part_end": self._part_ends,
                    "on_end": self._form_ends,
                },
            )
        except FormParserError as error:
            raise MalformedForm(f"the form cannot be read: {error}") from error

    @property
    def should_flush(self) -> bool:
        """Whether enough is gathered to be worth a thread."""
        return self._gathered >= _FLUSH_BYTES

    def feed(self, data: bytes) -> None:
        """Read on. Raises MalformedForm, TooLarge, and InvalidField for a field that comes twice."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedForm(f"the form cannot be read: {error}") from error

    def flush(self) -> None:
        """Write what is gathered. Blocks: for a thread."""
        for path, data in self._unwritten:
            with path.open("ab") as file:
                file.write(data)
        self._unwritten.clear()
        self._gathered = 0

    def finish(self) -> Form:
        """The form, after its last byte and the last flush. Raises MalformedForm when bytes are missing."""
        if not self._complete:
            raise MalformedForm("the form cannot be read: it breaks off before its closing boundary")
        return self._form

    def _part_begins(self) -> None:
        self._disposition = b""
        self._parts += 1
        if self._parts > _PARTS:
            raise MalformedForm(f"the form has more than {_PARTS} fields")

    def _header_ends(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise MalformedForm("the form cannot be read: a part of it has no name")
        name = options[b"name"].decode("utf-8", "replace")
        if name in self._form:  # which of the two is meant, nobody can know
            raise InvalidField(name, "the field comes twice")
        known = name in FILES or name in TEXTS
        if self._strict and not known:
            raise InvalidField(ascii(name[:_NAME_SHOWN]), "there is no such field")
        self._part = _Part(name, is_file=b"filename" in options) if known else None

    def _data_comes(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part is None:
            return
        part.size += end - start
        if part.is_file:
            if part.size > self._max_file_bytes:
                raise TooLarge(f"{part.name}: the file is larger than {self._max_file_bytes} bytes")
            if part.name in FILES:
                self._gather(self._folder / FILES[part.name], data[start:end])
        elif part.name in FILES:
            part.text += data[start : start + 1]  # enough to tell it from a field left blank
        else:
            if part.size > TEXT_BYTES:
                raise InvalidField(part.name, TOO_LONG)
            part.text += data[start:end]

    def _gather(self, path: Path, data: bytes) -> None:
        if not self._unwritten or self._unwritten[-1][0] != path:
            self._unwritten.append((path, bytearray()))
        self._unwritten[-1][1].extend(data)
        self._gathered += len(data)

    def _part_ends(self) -> None:
        part = self._part
        if part is None:
            return
        if part.is_file:  # `contract` refuses a text field that is one; nothing was written for it
            self._form[part.name] = Upload(self._folder / FILES.get(part.name, part.name), part.size)
        else:
            self._form[part.name] = part.text.decode("utf-8", "replace")

    def _form_ends(self) -> None:
        self._complete = True
