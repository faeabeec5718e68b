"""The request's body, held to its limits while it comes in, off the event loop where it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from avatar.errors import TooLarge
from avatar.form.parse import Form
from gateway.multipart import FormReader
from gateway.settings import Settings
from lipsync.tensors import FACE_FILE, SPEECH_FILE

from .errors import ClientGone, MalformedForm, UploadStalled


async def receive_form(request: Request, folder: Path, settings: Settings) -> Form:
    """Read the form, its files into `folder`.

    Raises MalformedForm, InvalidField, TooLarge (at once where Content-Length tells it), UploadStalled and
    ClientGone.
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
        raise MalformedForm("the form cannot be read: its Content-Type names no boundary")
    return options[b"boundary"]


def _form_too_large(settings: Settings) -> TooLarge:
    return TooLarge(
        f"{FACE_FILE}, {SPEECH_FILE}: each may have at most {settings.max_upload_bytes} bytes; the form has more"
    )


async def _body(request: Request, timeout: float) -> AsyncIterator[bytes]:  # noqa: ASYNC109 - of each piece
    """The body's pieces; at most `timeout` seconds between two of them."""
    more = True
    while more:
        try:
            message = await asyncio.wait_for(request.receive(), timeout)
        except TimeoutError:
            raise UploadStalled(f"nothing more of the form came for {timeout:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        yield message.get("body", b"")
