"""Post a form to the service, and decode the video of its response."""

import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

from avatar.media.ffmpeg import executable

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Video:
    frames: NDArray[np.uint8]  # [n,H,W,3] BGR
    fps: float
    sound: NDArray[np.float32]  # 16 kHz mono


def post(url: str, face: Path, speech: Path, file_type: str, background: str = "From Input") -> httpx.Response:
    with face.open("rb") as image, speech.open("rb") as sound:
        return httpx.post(
            f"{url}/",
            data={"avatarFileType": file_type, "background": background},
            files={"face_file": (face.name, image), "audio_file": (speech.name, sound)},
            timeout=300,
        )


def read_result(response: httpx.Response, folder: Path) -> Video:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/mp4"
    path = folder / "result.mp4"
    path.write_bytes(response.content)
    capture = cv2.VideoCapture(str(path))
    fps, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        read, frame = capture.read()
        if not read:
            break
        frames.append(frame)
    capture.release()
    return Video(np.stack(frames), fps, read_audio(path))


def read_audio(path: Path) -> NDArray[np.float32]:
    arguments = ["-v", "error", "-nostdin", "-i", str(path), "-ac", "1", "-ar", str(SAMPLE_RATE), "-f", "f32le", "-"]
    sound = subprocess.run([executable(), *arguments], check=True, capture_output=True).stdout
    return np.frombuffer(sound, np.float32)


def frames_of(samples: int, fps: Fraction) -> int:
    """Return `ceil(duration · fps)` in exact arithmetic."""
    return -(-samples * fps.numerator // (SAMPLE_RATE * fps.denominator))
