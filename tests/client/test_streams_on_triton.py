"""The client with the streaming models of a live Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar_client import AvatarClient, Cancelled, Chunk, Frame, InvalidRequest, Progress, Summary, _cli
from embedded.server import Triton
from tests.support.media import read_video, tone, write_wav

SECONDS = 1.0
FRAMES = 25


@pytest.fixture
def client(triton: Triton) -> Iterator[AvatarClient]:
    with AvatarClient(triton.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def face(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = cv2.imread(str(samples / "portrait.png"))
    path = tmp_path_factory.mktemp("face") / "face.png"
    cv2.imwrite(str(path), cv2.resize(image, None, fx=0.4, fy=0.4))
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("speech") / "speech.wav", tone(SECONDS))


def test_a_video_is_received_in_chunks_and_is_complete(
    client: AvatarClient, face: Path, speech: Path, tmp_path: Path
) -> None:
    events = list(client.render(face, speech, quality="draft", pads=(0, 5, 0, 0)))
    summary = events[-1]
    assert isinstance(summary, Summary)
    assert (summary.frames, summary.fps, summary.container) == (FRAMES, 25, "mp4")
    assert summary.seconds and summary.stand_ins
    encoded = [event for event in events if isinstance(event, Progress) and event.stage == "encode"]
    assert encoded[-1].done == FRAMES
    (tmp_path / "out.mp4").write_bytes(b"".join(event.data for event in events if isinstance(event, Chunk)))
    assert len(read_video(tmp_path / "out.mp4")) == FRAMES


async def test_concurrent_videos_are_received_with_async(client: AvatarClient, face: Path, speech: Path) -> None:
    first, second = await asyncio.gather(*[_summary(client, face, speech) for _ in range(2)])
    assert first.frames == second.frames == FRAMES


async def _summary(client: AvatarClient, face: Path, speech: Path) -> Summary:
    events = [event async for event in client.render(face, speech)]
    assert isinstance(events[-1], Summary)
    return events[-1]


def test_a_rejection_has_the_message_of_the_service(client: AvatarClient, face: Path, speech: Path) -> None:
    with pytest.raises(InvalidRequest, match="face_file") as caught:
        client.render(b"not an image", speech).read()
    assert caught.value.code == 400
    with pytest.raises(InvalidRequest, match="pads"):
        client.render(face, speech, pads="wide").read()
    with pytest.raises(InvalidRequest, match="face_file"):
        client.render(b"", speech).read()
    with pytest.raises(InvalidRequest):
        client.live(b"not an image")


def test_after_a_cancelled_video_the_server_renders_the_next_one(
    client: AvatarClient, face: Path, speech: Path
) -> None:
    with client.render(face, speech) as rendering:
        next(rendering)
        rendering.cancel()
        with pytest.raises(Cancelled):
            list(rendering)
    assert client.render(face, speech).read()


def test_the_command_writes_the_video(triton: Triton, face: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    assert _cli.main(["render", str(face), str(speech), "-o", str(out), "--server", triton.grpc_address]) == 0
    assert len(read_video(out)) == FRAMES


@pytest.mark.parametrize("frame_format", ["bgr", "jpeg", "mouth"])
def test_a_live_session_returns_a_frame_for_all_of_its_speech(
    client: AvatarClient, face: Path, frame_format: str
) -> None:
    samples = (tone(SECONDS) * 32767).astype(np.int16)
    with client.live(face, format=frame_format) as session:
        assert (session.info.fps, session.info.frames, session.info.format) == (25, 1, frame_format)
        frames: list[Frame] = []
        for piece in np.array_split(samples, 20):
            session.send(piece)
            frames += session.frames(block=False)
        session.end()
        frames += session
    assert session.summary is not None and session.summary.duration == SECONDS
    assert session.summary.frames >= FRAMES  # and those in which the mouth closes at the end
    assert [frame.index for frame in frames] == list(range(session.summary.frames))
    x1, y1, x2, y2 = frames[0].box
    for frame in frames:
        if frame_format == "jpeg":
            assert frame.jpeg is not None and frame.image is None
            image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
        else:
            assert frame.image is not None and frame.jpeg is None
            image = frame.image
        box_shape = (y2 - y1, x2 - x1, 3)
        assert image.shape == (box_shape if frame_format == "mouth" else (session.info.height, session.info.width, 3))


def test_a_cancelled_session_does_not_count_towards_the_limit(client: AvatarClient, face: Path) -> None:
    for _ in range(3):
        with client.live(face) as session:
            session.send(np.zeros(1600, np.float32))
    with client.live(face) as session:
        session.send(np.zeros(1600, np.float32))
        session.end()
        assert len(list(session)) >= 3
