"""Receive the request's body: enforce the limits while it arrives, write files outside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.types import Message

from avatar.errors import TooLarge
from avatar.form.parse import Form
from lipsync.tensors import FACE_FILE, SPEECH_FILE

from .errors import ClientDisconnected, EncodedForm, MalformedForm, UploadStalled, malformed
from .multipart import AVATAR_FORM, FormReader, KnownFields
from .settings import Settings
from .transfer import Pace
from .unknown_fields import report_ignored


async def receive_form(request: Request, folder: Path, settings: Settings, fields: KnownFields = AVATAR_FORM) -> Form:
    """Read the form, and write its files into `folder`; `fields` are those that it may have.

    Raises:
        MalformedForm: the body is not a readable multipart form.
        EncodedForm: the body is compressed.
        InvalidField: a field is invalid, duplicate, or (in strict mode) unknown.
        TooLarge: a file or the body exceeds its limit; raised before the body is read if Content-Length shows it.
        UploadStalled: no data arrived for `settings.upload_timeout` seconds, or less than the least rate.
        ClientDisconnected: the client closed the connection.
    """
    _check_encoding(request.headers.get("content-encoding", ""))
    boundary = _boundary(request.headers.get("content-type"), fields)
    reader = FormReader(boundary, folder, settings.max_upload_bytes, strict=settings.strict_form, fields=fields)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_form_bytes:
        raise _form_too_large(settings)
    received = 0
    async for data in _body(request, settings):
        received += len(data)
        if received > settings.max_form_bytes:
            raise _form_too_large(settings)
        reader.feed(data)
        if reader.should_flush:
            await asyncio.to_thread(reader.flush)
    await asyncio.to_thread(reader.flush)
    report_ignored(request, reader.ignored, fields.names)
    return reader.finish()


async def receive_text(request: Request, settings: Settings, max_bytes: int) -> bytes:
    """Read a body without files. Raises EncodedForm, TooLarge, UploadStalled and ClientDisconnected."""
    _check_encoding(request.headers.get("content-encoding", ""))
    text = bytearray()
    async for data in _body(request, settings):
        text += data
        if len(text) > max_bytes:
            raise TooLarge(f"the body has more than {max_bytes} bytes; send files as multipart/form-data")
    return bytes(text)


def media_type(request: Request) -> str:
    """Return the type of the body, without its options, in lower case."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    return kind.decode("latin-1")


def _check_encoding(encoding: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise EncodedForm(f"the Content-Encoding {encoding[:40]!a} is not supported; send the form uncompressed")


def _boundary(content_type: str | None, fields: KnownFields) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        got = f"got {kind.decode('latin-1')[:40]!a}" if kind else "the request has no Content-Type"
        files = " and ".join(name for name in (FACE_FILE, SPEECH_FILE) if name in fields.files)
        raise MalformedForm(f"send the form as multipart/form-data, with {files} as parts; {got}")
    if not options.get(b"boundary"):
        raise malformed("its Content-Type has no boundary")
    return options[b"boundary"]


def _form_too_large(settings: Settings) -> TooLarge:
    return TooLarge(
        f"{FACE_FILE}, {SPEECH_FILE}: each may have at most {settings.max_upload_bytes} bytes; the form is larger"
    )


async def _body(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """Yield the chunks of the body. The time that the consumer takes for a chunk is not counted against the client."""
    now = asyncio.get_running_loop().time
    pace = Pace(settings.transfer_seconds, settings.transfer_min_rate, now())
    more = True
    while more:
        message = await _receive(request, settings.upload_timeout, pace)
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        more = message.get("more_body", False)
        data = message.get("body", b"")
        pace.advance(len(data))
        waited_from = now()
        yield data
        pace.excuse(now() - waited_from)


async def _receive(request: Request, pause: float, pace: Pace) -> Message:
    left = pace.left(asyncio.get_running_loop().time())
    try:
        async with asyncio.timeout(min(pause, left)):
            return await request.receive()
    except TimeoutError:
        if left > pause:
            raise UploadStalled(f"upload timed out: no data received for {pause:g} s") from None
        raise UploadStalled(f"upload timed out: it is too slow; {pace.rule}") from None
