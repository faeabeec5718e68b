"""The mark of a result in its metadata: it is found and read, and changes no frame and no sound."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from avatar.media.marking import METADATA, Marker
from avatar.media.mp4_fragments import Fragments, moved_index
from avatar.request import AvatarRequest, Background
from tests.support.marks import (
    COMMENT,
    SYNTHETIC,
    boxes,
    frames_and_sound,
    packets,
    rendered,
    source_type,
    tags,
    xmp_packets,
)
from tests.support.media import ffmpeg, request, tone, write_still, write_wav

NOT_MARKED = Marker("none")
STAND_INS = "Made with stand-in checkpoints: s3fd, wav2lip"


@pytest.fixture
def job(tmp_path: Path) -> AvatarRequest:
    speech = write_wav(tmp_path / "speech.wav", tone(1.3))
    return request(tmp_path, write_still(tmp_path / "face.png"), speech, still=True)


async def saved(job: AvatarRequest, marker: Marker, name: str, stand_ins: tuple[str, ...] = ()) -> Path:
    chunks, result = await rendered(job, marker, stand_ins)
    path = job.folder / f"{name}.{result.container}"
    path.write_bytes(b"".join(chunks))
    return path


async def test_an_mp4_says_that_it_is_synthetic_in_its_xmp_and_in_a_comment(job: AvatarRequest) -> None:
    path = await saved(job, METADATA, "marked")
    (packet,) = xmp_packets(path.read_bytes())
    assert source_type(packet) == SYNTHETIC
    assert f"\ncomment={COMMENT}\n" in tags(path)
    assert SYNTHETIC in tags(path)  # ffmpeg and ffprobe find it, too


async def test_the_mark_changes_no_packet_no_frame_and_no_sound(job: AvatarRequest) -> None:
    for streamed in (False, True):
        asked = replace(job, streamed=streamed)
        marked, unmarked = await saved(asked, METADATA, "marked"), await saved(asked, NOT_MARKED, "unmarked")
        assert packets(marked) == packets(unmarked)
        assert frames_and_sound(marked) == frames_and_sound(unmarked)


async def test_the_index_of_a_file_is_still_first(job: AvatarRequest) -> None:
    kinds = [kind for kind, _, _ in boxes((await saved(job, METADATA, "marked")).read_bytes())]
    assert kinds[:2] == [b"ftyp", b"moov"]
    assert kinds[-2:] == [b"mdat", b"uuid"]


async def test_a_streamed_mp4_is_marked_from_its_first_chunk_on(job: AvatarRequest) -> None:
    chunks, _ = await rendered(replace(job, streamed=True), METADATA)
    assert [kind for kind, _, _ in boxes(chunks[0])] == [b"ftyp", b"moov", b"uuid", b"moof", b"mdat"]
    (path := job.folder / "first.mp4").write_bytes(chunks[0])
    assert SYNTHETIC in tags(path)
    assert f"\ncomment={COMMENT}\n" in tags(path)
    assert not any(xmp_packets(chunk) for chunk in chunks[1:])


async def test_the_index_at_the_end_of_a_stream_points_at_its_fragments(job: AvatarRequest) -> None:
    data = b"".join((await rendered(replace(job, streamed=True), METADATA))[0])
    fragments = [start for kind, start, _ in boxes(data) if kind == b"moof"]
    assert len(fragments) >= 3
    (index,) = [data[start + 8 : end] for kind, start, end in boxes(data) if kind == b"mfra"]
    tables = [index[start + 8 : end] for kind, start, end in boxes(index) if kind == b"tfra"]
    assert [positions(table) for table in tables] == [fragments, fragments]


async def test_a_player_that_uses_that_index_finds_the_same_frame(job: AvatarRequest) -> None:
    asked = replace(job, streamed=True)
    found = []
    for marker, name in ((METADATA, "marked"), (NOT_MARKED, "unmarked")):
        path = await saved(asked, marker, name)
        at = ["-use_mfra_for", "pts", "-ss", "0.8", "-i", str(path)]
        found.append(ffmpeg(*at, "-map", "0:v", "-frames:v", "1", "-f", "framemd5", "pipe:1"))
    assert found[0].count(b"\n0,") == 1
    assert found[0] == found[1]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_webm_says_it_in_two_tags(job: AvatarRequest, streamed: bool) -> None:
    asked = replace(job, background=Background.TRANSPARENT, streamed=streamed)
    marked, unmarked = await saved(asked, METADATA, "marked"), await saved(asked, NOT_MARKED, "unmarked")
    assert marked.suffix == ".webm"
    assert {f"DIGITAL_SOURCE_TYPE={SYNTHETIC}", f"COMMENT={COMMENT}"} <= set(tags(marked).splitlines())
    assert "SOURCE_TYPE" not in tags(unmarked)
    assert frames_and_sound(marked) == frames_and_sound(unmarked)


async def test_stand_ins_are_named_in_the_same_comment(job: AvatarRequest) -> None:
    path = await saved(job, METADATA, "marked", ("s3fd", "wav2lip"))
    assert f"\ncomment={COMMENT}. {STAND_INS}\n" in tags(path)


async def test_without_a_mark_only_stand_ins_are_named(job: AvatarRequest) -> None:
    path = await saved(job, NOT_MARKED, "unmarked")
    assert "comment" not in tags(path)
    assert SYNTHETIC.encode() not in path.read_bytes()
    path = await saved(job, NOT_MARKED, "stand-ins", ("s3fd", "wav2lip"))
    assert f"\ncomment={STAND_INS}\n" in tags(path)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_box_is_inserted_after_the_header_whatever_the_size_of_the_reads(size: int) -> None:
    head, extra = box(b"ftyp", b"isom") + box(b"moov", b"x" * 50), box(b"uuid", b"says it")
    first, second = box(b"moof", b"a") + box(b"mdat", b"frames"), box(b"moof", b"b") + box(b"mdat", b"more")
    data = head + first + second + index(1, 0, [len(head), len(head + first)])
    fragments = Fragments("mp4", extra)
    chunks = [chunk for at in range(0, len(data), size) for chunk in fragments.feed(data[at : at + size])]
    assert chunks == [head + extra + first, second]
    assert fragments.flush() == index(1, 0, [len(head + extra), len(head + extra + first)])


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("sizes", [0, 0b111111, 0b010010])
def test_an_index_is_moved_whatever_the_sizes_of_its_numbers(version: int, sizes: int) -> None:
    assert moved_index(index(version, sizes, [10, 2000]), 500) == index(version, sizes, [510, 2500])


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def index(version: int, sizes: int, places: list[int]) -> bytes:
    """Return an `mfra` box with two tables."""
    numbers = bytes(range(1, 13))[: sum((sizes >> shift & 3) + 1 for shift in (0, 2, 4))]
    entry = ">QQ" if version else ">II"
    body = b"".join(struct.pack(entry, n, place) + numbers for n, place in enumerate(places))
    tables = [box(b"tfra", struct.pack(">B7xII", version, sizes, len(places)) + body) for _ in range(2)]
    return box(b"mfra", b"".join(tables) + box(b"mfro", struct.pack(">II", 0, 99)))


def positions(table: bytes) -> list[int]:
    """Return the positions of a `tfra` box as ffmpeg writes it: version 1, three numbers of one byte each."""
    version, sizes, count = struct.unpack_from(">B7xII", table)
    assert (version, sizes) == (1, 0)
    return [struct.unpack_from(">QQ3x", table, 16 + n * 19)[1] for n in range(count)]
