"""Receive the request's body: enforce the limits while it arrives, write files outside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from avatar.errors import TooLarge
from avatar.form.parse import Form
from lipsync.tensors import FACE_FILE, SPEECH_FILE

from .errors import ClientDisconnected, MalformedForm, UploadStalled
from .multipart import FormReader
from .settings import Settings


async def receive_form(request: Request, folder: Path, settings: Settings) -> Form:
    """Read the form, and write its files into `folder`.

    Raises:
        MalformedForm: the body is not a readable multipart form.
        InvalidField: a field is invalid, duplicate, or (in strict mode) unknown.
        TooLarge: a file or the body exceeds its limit; raised before the body is read if Content-Length shows it.
        UploadStalled: no data arrived for `settings.upload_timeout` seconds.
        ClientDisconnected: the client closed the connection.
    """
    boundary = _boundary(request.headers.get("content-type"))
    reader = FormReader(boundary, folder, settings.max_upload_bytes, strict=settings.strict_form)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > settings.max_form_bytes:
        raise _form_too_large(settings)
    received = 0
    async for data in _body(request, settings.upload_timeout):
        received += len(data)
        if received > settings.max_form_bytes:
            raise _form_too_large(settings)
        reader.feed(data)
        if reader.should_flush:
            await asyncio.to_thread(reader.flush)
    await asyncio.to_thread(reader.flush)
    return reader.finish()


def _boundary(content_type: str | None) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise MalformedForm("send the form as multipart/form-data")
    if not options.get(b"boundary"):
        raise MalformedForm("invalid multipart form: its Content-Type has no boundary")
    return options[b"boundary"]


def _form_too_large(settings: Settings) -> TooLarge:
    return TooLarge(
        f"{FACE_FILE}, {SPEECH_FILE}: each may have at most {settings.max_upload_bytes} bytes; the form is larger"
    )


async def _body(request: Request, timeout: float) -> AsyncIterator[bytes]:  # noqa: ASYNC109 - per message
    """Yield the chunks of the body; at most `timeout` seconds may pass between two of them."""
    more = True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), timeout)
        except TimeoutError:
            raise UploadStalled(f"upload timed out: no data received for {timeout:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        more = message.get("more_body", False)
        yield message.get("body", b"")
