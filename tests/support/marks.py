"""Read the marks of a video, with ffmpeg and an XML parser, and compare videos packet by packet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from xml.etree import ElementTree

from avatar.events import Chunk, RenderResult
from avatar.media.marking import Marker
from avatar.pipeline import render
from avatar.request import AvatarRequest
from avatar.testing import FakeInference
from tests.support.media import ffmpeg

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
COMMENT = "Synthetic media: a generative model made this face speak"
XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


async def rendered(
    job: AvatarRequest, marker: Marker, stand_ins: tuple[str, ...] = ()
) -> tuple[list[bytes], RenderResult]:
    """Run a job; return its chunks (of a file: all of it in one) and its result."""
    chunks: list[bytes] = []
    result: RenderResult | None = None
    models = FakeInference(darken=True, stand_ins=stand_ins)
    async with aclosing(render(job, models, marker=marker)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                chunks.append(event.data)
            elif isinstance(event, RenderResult):
                result = event
    assert result
    return ([result.path.read_bytes()] if result.path else chunks), result


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the start and the end of each box at the top level of an MP4."""
    start = 0
    while start < len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + size
        start += size


def xmp_packets(data: bytes) -> list[bytes]:
    """Return the XMP packets of an MP4."""
    found = [data[start + 8 : end] for kind, start, end in boxes(data) if kind == b"uuid"]
    return [body[16:] for body in found if body[:16] == XMP_UUID]


def source_type(packet: bytes) -> str | None:
    """Return the digital source type of an XMP packet."""
    description = ElementTree.fromstring(packet.decode()).find(f".//{RDF}")  # noqa: S314 - our own packet
    return None if description is None else description.get(SOURCE_TYPE)


def tags(path: Path) -> str:
    """Return the tags of the container as ffmpeg reads them, `name=text`, XMP among them; ffprobe reads the same."""
    xmp = ["-export_xmp", "1"] if path.suffix == ".mp4" else []
    return ffmpeg(*xmp, "-i", str(path), "-f", "ffmetadata", "pipe:1").decode().replace("\\", "")


def packets(path: Path) -> bytes:
    """Return the time and the checksum of every packet of both tracks."""
    return ffmpeg("-i", str(path), "-map", "0", "-c", "copy", "-f", "framemd5", "pipe:1")


def frames_and_sound(path: Path) -> bytes:
    """Return the time and the checksum of every decoded frame, opacity included, and of the sound."""
    decoder = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" else []
    return ffmpeg(*decoder, "-i", str(path), "-map", "0", "-f", "framemd5", "pipe:1")
