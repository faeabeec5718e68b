"""A result streamed in chunks: equal to the file, and playable from its first chunk on."""

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avatar.events import Chunk, RenderResult
from avatar.media.mp4_fragments import Fragments
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background
from avatar.testing import FakeInference
from tests.support.media import (
    children,
    ffmpeg,
    names,
    read_sound,
    read_video,
    request,
    run,
    tone,
    write_still,
    write_wav,
)

SPEECH = tone(3.0)


def job(folder: Path, background: Background = Background.FROM_INPUT) -> AvatarRequest:
    face = write_still(folder / "face.png")
    return request(folder, face, write_wav(folder / "speech.wav", SPEECH), still=True, background=background)


async def streamed(avatar_request: AvatarRequest) -> tuple[list[bytes], RenderResult]:
    chunks: list[bytes] = []
    result: RenderResult | None = None
    async with aclosing(render(replace(avatar_request, streamed=True), FakeInference(darken=True))) as events:
        async for event in events:
            if isinstance(event, Chunk):
                chunks.append(event.data)
            elif isinstance(event, RenderResult):
                result = event
    assert result
    return chunks, result


def packets(path: Path, stream: str) -> bytes:
    """Return the checksums of a stream's packets, the input of a decoder."""
    listed = ffmpeg("-i", str(path), "-map", stream, "-c", "copy", "-f", "framemd5", "pipe:1")
    return b"\n".join(line.split(b",")[5] for line in listed.splitlines() if not line.startswith(b"#"))


async def test_the_chunks_hold_the_same_packets_as_the_file(tmp_path: Path) -> None:
    avatar_request = job(tmp_path)
    whole = await run(avatar_request, FakeInference(darken=True))
    chunks, result = await streamed(avatar_request)
    (path := tmp_path / "streamed.mp4").write_bytes(b"".join(chunks))
    assert whole.path
    assert packets(path, "0:v") == packets(whole.path, "0:v")
    assert packets(path, "0:a") == packets(whole.path, "0:a")
    assert (result.path, result.container) == (None, "mp4")
    assert (result.frames, result.duration) == (whole.frames, whole.duration)


async def test_the_first_chunk_plays_alone_and_each_further_one_adds_frames(tmp_path: Path) -> None:
    chunks, result = await streamed(job(tmp_path))
    assert len(chunks) >= 4
    before = 0
    for count in range(1, len(chunks)):
        (path := tmp_path / "partial.mp4").write_bytes(b"".join(chunks[:count]))
        frames = len(read_video(path))
        assert frames > before
        before = frames
    assert before == result.frames
    assert np.abs(read_sound(path)).max() > 0.1


async def test_a_result_with_an_alpha_channel_is_streamed_as_webm(tmp_path: Path) -> None:
    avatar_request = job(tmp_path, Background.TRANSPARENT)
    whole = await run(avatar_request, FakeInference(darken=True))
    chunks, result = await streamed(avatar_request)
    (path := tmp_path / "streamed.webm").write_bytes(b"".join(chunks))
    assert result.container == "webm"
    assert whole.path
    assert packets(path, "0:v") == packets(whole.path, "0:v")


async def test_nothing_is_written_to_the_folder_and_no_process_is_left(tmp_path: Path) -> None:
    avatar_request = job(tmp_path)
    before, files = children(), names(tmp_path)
    await streamed(avatar_request)
    async with aclosing(render(replace(avatar_request, streamed=True), FakeInference())) as events:
        async for event in events:
            if isinstance(event, Chunk):
                break
    assert names(tmp_path) == files
    assert children() == before


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_fragments_end_with_the_frames_whatever_the_size_of_the_reads(size: int) -> None:
    def box(kind: bytes, body: bytes) -> bytes:
        return (len(body) + 8).to_bytes(4, "big") + kind + body

    def long_box(kind: bytes, body: bytes) -> bytes:
        return b"\0\0\0\1" + kind + (len(body) + 16).to_bytes(8, "big") + body

    first = box(b"ftyp", b"isom") + box(b"moov", b"x" * 50) + box(b"moof", b"a") + box(b"mdat", b"frames")
    second = box(b"moof", b"b") + long_box(b"mdat", b"more" * 40)
    index = box(b"mfra", b"index")
    data = first + second + index
    fragments = Fragments("mp4")
    chunks = [chunk for at in range(0, len(data), size) for chunk in fragments.feed(data[at : at + size])]
    assert chunks == [first, second]
    assert fragments.flush() == index
    assert fragments.flush() == b""
