"""Whole jobs over HTTP: a real gateway, a real Triton, real ffmpeg.

One video is rendered with networks of the real size, the others with tiny ones.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from demo.stack import Ports
from embedded.server import Triton
from lipsync.boxes import pad
from lipsync.face_detection import best_face
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from tests.support.gateway_process import Gateway, gateway_process, without_modules
from tests.support.results import Video, frames_of, post, read_audio, read_result
from tests.support.triton_calls import caller

Media = Callable[..., Path]
CODEC = 12  # gray levels by which H.264 may change a pixel of a still region (99.9 % of the pixels)


@pytest.fixture(scope="module")
def full_gateway(stand_in_triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose Triton runs networks of the real size, with stand-in weights."""
    with gateway_process(tmp_path_factory.mktemp("gateway"), stand_in_triton.grpc_address) as running:
        yield running


@pytest.fixture(scope="module")
def demo_speech(media: Media, samples: Path) -> Path:
    """The first 1.2 s of the speech of the demo: a frame of a real network takes 0.1 s of a core."""
    return media("demo.wav", "-i", str(samples / "speech.wav"), "-t", "1.2")


@pytest.fixture(scope="module")
def demo(full_gateway: Gateway, samples: Path, demo_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Video:
    """The video of the form that the demo posts, with the short speech."""
    response = post(full_gateway.url, samples / "face.png", demo_speech, "png")
    assert response.headers["x-avatar-stand-ins"]
    return read_result(response, tmp_path_factory.mktemp("demo"))


def _changed_area(video: Video, image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the rows and columns of the rectangle in which the video clearly differs from the image."""
    change = np.abs(video.frames.astype(np.int16) - image).max(axis=(0, 3)) > 40
    change = cv2.morphologyEx(change.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    rows, columns = np.flatnonzero(change.any(axis=1)), np.flatnonzero(change.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _darkness(video: Video, at: tuple[slice, slice]) -> NDArray[np.float64]:
    return -video.frames[:, at[0], at[1]].mean(axis=(1, 2, 3), dtype=np.float64)


def test_the_darkness_of_the_mouth_follows_the_loudness_of_the_speech(
    demo: Video, demo_speech: Path, samples: Path
) -> None:
    windows = mel_windows(mel_spectrogram(read_audio(demo_speech)), 25.0)
    loudness = windows.mean(axis=(1, 2))
    loudness = np.append(loudness, [loudness[-1]] * (len(demo.frames) - len(loudness)))
    image = cv2.imread(str(samples / "face.png")).astype(np.uint8)
    darkness = _darkness(demo, _changed_area(demo, image))
    assert np.corrcoef(darkness, loudness)[0, 1] >= 0.8


def test_outside_the_face_the_image_is_unchanged(demo: Video, samples: Path, stand_in_triton: Triton) -> None:
    image = cv2.imread(str(samples / "face.png")).astype(np.uint8)
    with caller(stand_in_triton.grpc_address) as call:
        detected = call("detect_faces", {"frames": image[None]})
    face = best_face(detected["boxes"][0], detected["scores"][0])
    assert face is not None
    ((left, top, right, bottom),) = pad(face[None], image.shape[1], image.shape[0])
    rows, columns = _changed_area(demo, image)
    assert (left <= columns.start, columns.stop <= right, top <= rows.start, rows.stop <= bottom) == (True,) * 4
    outside = np.ones(image.shape[:2], bool)
    block = 16  # pixels; blocks of the codec extend beyond the edge of the box
    outside[max(0, top - block) : bottom + block, max(0, left - block) : right + block] = False
    assert outside.mean() > 0.3
    difference = np.abs(demo.frames[::10].astype(np.int16) - image)[:, outside]
    assert np.quantile(difference, 0.999) <= CODEC


def test_the_frames_last_as_long_as_the_speech(demo: Video, demo_speech: Path) -> None:
    assert demo.fps == 25
    assert len(demo.frames) == frames_of(len(read_audio(demo_speech)), Fraction(25))


def test_the_audio_is_the_whole_speech_without_an_offset(demo: Video, demo_speech: Path) -> None:
    speech = read_audio(demo_speech)
    assert len(demo.sound) >= len(speech)
    audio = demo.sound[: len(speech)]
    assert np.corrcoef(audio, speech)[0, 1] > 0.95
    tail = slice(len(speech) - 1600, len(speech))  # the last 0.1 s, which the original lost
    assert np.corrcoef(audio[tail], speech[tail])[0, 1] > 0.9


def test_no_file_is_left_after_a_video(full_gateway: Gateway, demo: Video) -> None:
    assert full_gateway.leftovers() == []


@pytest.fixture(scope="module")
def short_speech(media: Media, samples: Path) -> Path:
    return media("short.wav", "-i", str(samples / "speech.wav"), "-t", "1.3")


@pytest.fixture(scope="module")
def moving(media: Media, samples: Path) -> Path:
    """0.8 s of the portrait moving 40 pixels to the right, 320x240, 30000/1001 frames per second."""
    crop = "crop=600:450:'20*t/0.8':10,scale=320:240"
    arguments = ["-loop", "1", "-framerate", "30000/1001", "-i", str(samples / "face.png"), "-vf", crop]
    return media("moving.mp4", *arguments, "-t", "0.8", "-pix_fmt", "yuv420p", "-crf", "16")


def test_a_video_shorter_than_the_speech_is_looped_at_its_own_rate(
    gateway: Gateway, moving: Path, short_speech: Path, tmp_path: Path
) -> None:
    video = read_result(post(gateway.url, moving, short_speech, "mp4", "no colour at all"), tmp_path)
    rate = Fraction(30000, 1001)
    assert video.fps == pytest.approx(float(rate))
    assert len(video.frames) == frames_of(len(read_audio(short_speech)), rate)
    looped = 24  # frames in the 0.8 s
    strip = video.frames[:, :30].astype(np.int16)  # above the face: as in the source
    again = np.abs(strip[looped : looped + 10] - strip[:10]).mean()
    shifted = np.abs(strip[looped : looped + 10] - strip[10:20]).mean()
    assert again < shifted / 2


def test_a_still_gets_the_requested_background_color(
    gateway: Gateway, samples: Path, short_speech: Path, tmp_path: Path
) -> None:
    video = read_result(post(gateway.url, samples / "face.png", short_speech, "png", "Red"), tmp_path)
    background = np.abs(video.frames.astype(np.int16) - np.array((52, 52, 209))).max(axis=3) < 12  # BGR
    assert background.mean() > 0.2


def test_four_concurrent_forms_give_the_same_videos_as_sequential_ones(
    gateway: Gateway, samples: Path, moving: Path, short_speech: Path, media: Media
) -> None:
    later = media("later.wav", "-ss", "3", "-i", str(samples / "speech.wav"), "-t", "0.9")
    forms: list[tuple[Path, Path, str, str]] = [
        (samples / "face.png", short_speech, "png", "From Input"),
        (samples / "face.png", later, "png", "Blue"),
        (moving, short_speech, "mp4", "From Input"),
        (moving, later, "mp4", "From Input"),
    ]
    sequential = [post(gateway.url, *form) for form in forms]
    with ThreadPoolExecutor(len(forms)) as pool:
        concurrent = list(pool.map(lambda form: post(gateway.url, *form), forms))
    assert [response.status_code for response in (*sequential, *concurrent)] == [200] * 8
    assert len({response.content for response in sequential}) == 4
    for one, other in zip(sequential, concurrent, strict=True):
        assert one.content == other.content
    assert gateway.leftovers() == []


def test_an_image_without_a_face_gets_the_sentence_of_the_original_service(
    gateway: Gateway, media: Media, short_speech: Path
) -> None:
    wall = media("wall.png", "-f", "lavfi", "-i", "color=c=gray:s=320x240", "-frames:v", "1")
    response = post(gateway.url, wall, short_speech, "png")
    assert response.status_code == 400
    assert response.json() == {"detail": "Face not detected! Ensure the video contains a face in all the frames."}
    assert gateway.leftovers() == []


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (3, 64)])
def test_a_tiny_image_without_a_face_gets_the_sentence_of_the_original_service(
    gateway: Gateway, short_speech: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    dot = tmp_path / "dot.png"
    cv2.imwrite(str(dot), np.full((*size, 3), (210, 150, 120), np.uint8))  # the sky
    for background in ("From Input", "Green"):
        response = post(gateway.url, dot, short_speech, "png", background)
        assert (response.status_code, response.json()["detail"].split("!")[0]) == (400, "Face not detected")
    assert gateway.leftovers() == []


NOT_NEEDED = ("tensorflow", "torch", "tf2onnx", "onnx", "onnxruntime", "pytriton")


def test_a_gateway_without_tensorflow_and_torch_installed_renders_a_video(
    triton: Triton, samples: Path, short_speech: Path, tmp_path: Path
) -> None:
    with gateway_process(tmp_path, triton.grpc_address, without=NOT_NEEDED) as bare:
        video = read_result(post(bare.url, samples / "face.png", short_speech, "png", "Green"), tmp_path)
    assert len(video.frames) == frames_of(len(read_audio(short_speech)), Fraction(25))
    for module in NOT_NEEDED:  # none of them can be imported there
        environment = {**os.environ, **without_modules(tmp_path, [module])}
        done = subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, capture_output=True)
        assert done.stderr.splitlines()[-1].startswith(b"ModuleNotFoundError")


def test_one_video_can_be_both_the_face_and_the_speech(
    gateway: Gateway, moving: Path, media: Media, samples: Path, tmp_path: Path
) -> None:
    both = media("both.mp4", "-i", str(moving), "-i", str(samples / "speech.wav"), "-t", "0.8", "-c:v", "copy")
    video = read_result(post(gateway.url, both, both, "mp4"), tmp_path)
    assert len(video.frames) == frames_of(len(read_audio(both)), Fraction(30000, 1001))


def test_without_triton_the_response_is_503_with_retry_after_and_ping_still_responds(
    samples: Path, short_speech: Path, tmp_path: Path
) -> None:
    with gateway_process(tmp_path, f"127.0.0.1:{Ports.free().grpc}") as running:
        response = post(running.url, samples / "face.png", short_speech, "png")
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "detail" in response.json()
        assert httpx.get(f"{running.url}/ping").json() == {"pong": "-"}
        assert running.leftovers() == []
