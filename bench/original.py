"""The original algorithm, stated plainly: PyTorch eager, fp32, the whole clip at once, its own batch sizes.

Not the original's code: the same steps in the same order, over this project's nets and arithmetic, so that
one run can time both. Held to the golden data in `tests/bench`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from export.checkpoints import load_s3fd
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync import boxes, faces
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.tensors import FACE_SIZE
from lipsync.windows import mel_windows

DETECTION_BATCH, GENERATION_BATCH = 16, 32
STILL_FPS = 25.0

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass
class Stages:
    """Seconds by stage, in the order they ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what runs inside as stage `name`."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


@torch.inference_mode()
def detect(net: S3FD, frames: Pictures, batch: int = DETECTION_BATCH) -> NDArray[np.int32]:
    """Frames UINT8 [n,H,W,3] BGR to the int corners of each one's best face, INT32 [n,4].

    Raises:
        ValueError: a frame without a face.
    """
    found = []
    for start in range(0, len(frames), batch):
        rgb = frames[start : start + batch, :, :, ::-1].astype(np.float32) - np.array(faces.RGB_MEANS, np.float32)
        maps = net(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))))
        for kept in zip(*faces.suppress(*faces.candidates([each.numpy() for each in maps])), strict=True):
            face = faces.best_face(*kept)
            if face is None:
                raise ValueError("a frame without a face")
            found.append(face)
    return np.stack(found)


@torch.inference_mode()
def generate(net: Wav2Lip, crops: Pictures, windows: Floats, batch: int = GENERATION_BATCH) -> Pictures:
    """Crops UINT8 [n,96,96,3] BGR and mel windows FP32 [n,80,16] to mouths UINT8 [n,96,96,3]."""
    mouths = []
    for start in range(0, len(crops), batch):
        whole = crops[start : start + batch].astype(np.float32)
        masked = whole.copy()
        masked[:, FACE_SIZE // 2 :] = 0
        face = np.concatenate((masked, whole), axis=3).transpose(0, 3, 1, 2) / 255
        mel = windows[start : start + batch, None]
        mouth = net(torch.from_numpy(mel), torch.from_numpy(np.ascontiguousarray(face))).numpy()
        mouths.append((mouth.transpose(0, 2, 3, 1) * 255).astype(np.uint8))
    return np.concatenate(mouths)


def still(picture: Path, speech: Path, out: Path, detector: Path, generator: Wav2Lip, ffmpeg: str) -> Stages:
    """A picture and a recording to an mp4, `out`; its intermediate AVI stands beside it while it runs.

    `detector` is a file because the original reads its detector anew for each request (the generator only once).
    """
    stages = Stages()
    with stages.timed("speech"):
        sound, _ = librosa.load(speech, sr=SAMPLE_RATE)
        windows = mel_windows(mel_spectrogram(sound), STILL_FPS)
    with stages.timed("detection"):
        frame = cv2.imread(str(picture))
        if frame is None:
            raise ValueError(f"{picture}: not a picture")
        rects = boxes.pad(detect(load_s3fd(detector), frame[None].astype(np.uint8)), frame.shape[1], frame.shape[0])
        x1, y1, x2, y2 = boxes.smooth(rects)[0]
    with stages.timed("generation"):
        crops = [cv2.resize(frame[y1:y2, x1:x2], (FACE_SIZE, FACE_SIZE)) for _ in windows]  # each anew, as there
        mouths = generate(generator, np.stack(crops).astype(np.uint8), windows)
    with stages.timed("paste and write"):
        avi = out.with_suffix(".avi")
        size = (frame.shape[1], frame.shape[0])
        writer = cv2.VideoWriter(str(avi), cv2.VideoWriter.fourcc(*"DIVX"), STILL_FPS, size)
        for mouth in mouths:
            result = frame.copy()
            result[y1:y2, x1:x2] = cv2.resize(mouth, (int(x2 - x1), int(y2 - y1)))
            writer.write(result)
        writer.release()
    with stages.timed("mux"):
        arguments = ["-v", "error", "-y", "-i", str(speech), "-i", str(avi), "-q:v", "1", str(out)]
        subprocess.run([ffmpeg, *arguments], check=True, stdin=subprocess.DEVNULL)
        avi.unlink()
    return stages
