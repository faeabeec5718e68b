"""Forms as real clients write them, byte by byte over a real connection, and forms that are rejected in our words."""

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from avatar.form.parse import Upload
from gateway.errors import MalformedForm
from gateway.multipart import FormReader
from tests.gateway.conftest import Live
from tests.support.gateway_fakes import eventually, leftovers

Start = Callable[..., Awaitable[Live]]

FACE = 'Content-Disposition: form-data; name="face_file"; filename="face.png"'
SPEECH = 'Content-Disposition: form-data; name="audio_file"; filename="speech.wav"'
TYPE = 'Content-Disposition: form-data; name="avatarFileType"'
BACKGROUND = 'Content-Disposition: form-data; name="background"'


def body(face: str = FACE, speech: str = SPEECH, blanks: str = "", preamble: str = "", end: str = "\r\n") -> bytes:
    """The body of a form with these headers of its parts."""
    parts = ((face, "a face"), (speech, "a speech"), (TYPE, "png"), (BACKGROUND, "From Input"))
    text = "".join(f"--b{blanks}\r\n{headers}\r\n\r\n{content}\r\n" for headers, content in parts)
    return (preamble + text + "--b--" + end).encode()


async def send(gateway: Live, data: bytes, headers: str = "", cut: bool = False) -> tuple[int, bytes]:
    """Post the body; with `cut`, each byte in a packet of its own. Return the status and the body of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=b\r\n{headers}\r\n".encode())
    for at in range(len(data)) if cut else (slice(None),):
        writer.write(data[at : at + 1] if isinstance(at, int) else data[at])
        if cut:
            await writer.drain()
            await asyncio.sleep(0)
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        answer = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), answer


@pytest.mark.parametrize(
    "data",
    [
        body(),
        body(preamble="This is a message in MIME format.\r\n\r\n"),
        body(preamble="--bc\r\nno boundary, --b neither\r\n"),
        body(preamble="\r\n"),
        body(blanks=" \t"),
        body(end=""),
        body(end="\r\nan epilogue\r\n--b\r\n"),
        body(face=FACE.replace('filename="face.png"', "filename*=UTF-8''%E5%9B%BE.png")),
        body(face=FACE.replace('filename="face.png"', "filename=face.png")),
        body(face=FACE.replace("; name=", ";name=").replace("; filename=", ";\tfilename=")),
        body(face=FACE.upper().replace("FACE_FILE", "face_file")),
        body(face="Content-Type: image/png\r\n" + FACE),
        body(face=FACE + "\r\nContent-Transfer-Encoding: binary"),
        body(face="\r\n".join([FACE, *(f"X-Header-{n}: {'v' * 60}" for n in range(60))])),
        body(face=FACE + f"\r\nX-Long: {'v' * 8000}"),
    ],
    ids=[
        "plain",
        "preamble",
        "preamble like a boundary",
        "empty line first",
        "blanks after the boundary",
        "no line end at the end",
        "epilogue",
        "filename* only",
        "no quotes",
        "other blanks",
        "upper case",
        "other header first",
        "transfer encoding",
        "many headers",
        "long header",
    ],
)
async def test_a_form_as_clients_write_it_is_accepted_whole_and_cut(live: Start, work: Path, data: bytes) -> None:
    gateway = await live()
    for cut in (False, True):
        assert await send(gateway, data, cut=cut) == (200, b"a face|a speech")
        await eventually(lambda: leftovers(work) == [])


@pytest.mark.parametrize(
    ("data", "status", "detail"),
    [
        (
            body().replace(b"\r\n", b"\n"),
            400,
            "invalid multipart form: its lines end with LF; end them with CR and LF",
        ),
        (
            body(preamble="x" * 70_000),
            400,
            "invalid multipart form: its first 65536 bytes do not contain the boundary of its Content-Type",
        ),
        (
            body(face="\r\n".join([FACE, *(f"X-{n}: v" for n in range(200))])),
            400,
            "invalid multipart form: it is damaged, or a part has more than 100 headers, at byte 957",
        ),
        (
            body(face=FACE + "\r\nno header"),
            400,
            "invalid multipart form: it is damaged, or a part has more than 100 headers, at byte 78",
        ),
        (
            body(face=FACE + "\r\nContent-Transfer-Encoding: BASE64"),
            400,
            "face_file: its Content-Transfer-Encoding is not supported; send the bytes as they are",
        ),
        (body(face="Content-Type: image/png"), 400, "invalid multipart form: a part has no name"),
    ],
    ids=["LF only", "long preamble", "too many headers", "no header", "base64", "no name"],
)
async def test_a_form_that_cannot_be_read_is_rejected_in_our_words(
    live: Start, data: bytes, status: int, detail: str
) -> None:
    gateway = await live()
    answer = await send(gateway, data)
    assert (answer[0], json.loads(answer[1])) == (status, {"detail": detail})


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_body_is_rejected_with_415(live: Start, encoding: str) -> None:
    gateway = await live()
    status, answer = await send(gateway, gzip.compress(body()), f"Content-Encoding: {encoding}\r\n")
    detail = f"the Content-Encoding '{encoding}' is not supported; send the form uncompressed"
    assert (status, json.loads(answer)) == (415, {"detail": detail})


async def test_a_body_that_names_no_compression_is_accepted(live: Start) -> None:
    gateway = await live()
    assert (await send(gateway, body(), "Content-Encoding: identity\r\n"))[0] == 200


@pytest.mark.parametrize("preamble", ["", "--bb\r\n-\r\n", "a\r\n" * 50], ids=["none", "like a boundary", "lines"])
def test_the_form_does_not_depend_on_how_its_bytes_are_cut(tmp_path: Path, preamble: str) -> None:
    data = body(preamble=preamble, face=FACE + "\r\n\r\n\r\n--bb\r\n--\r\n--b-", blanks=" ")
    chance = random.Random(7)
    for n in range(200):
        folder = tmp_path / str(n)
        folder.mkdir()
        reader = FormReader(b"b", folder, 1000)
        cuts = sorted(chance.sample(range(len(data)), chance.randrange(30)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            reader.feed(data[start:end])
        reader.flush()
        form = reader.finish()
        face = form["face_file"]
        assert isinstance(face, Upload)
        assert face.path.read_bytes() == b"\r\n--bb\r\n--\r\n--b-\r\n\r\na face"
        assert form["background"] == "From Input"


def test_a_preamble_without_end_is_not_kept(tmp_path: Path) -> None:
    reader = FormReader(b"b", tmp_path, 1000)
    with pytest.raises(MalformedForm):
        for _ in range(100):
            reader.feed(b"x" * 1000)
