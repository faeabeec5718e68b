"""The original algorithm: PyTorch eager, fp32, the whole clip in memory, the original's batch sizes.

This is not the original's code. It does the same steps in the same order, with the networks and the arithmetic of this
project, so that one run can time both. `tests/bench` compares it with the golden data.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.checkpoints.load import load_s3fd
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync import boxes, face_detection
from lipsync.arrays import Boxes, Floats, Images
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import FACE_SIZE

DETECTION_BATCH, GENERATION_BATCH = 16, 32
STILL_FPS = 25.0
STILLS = (".jpg", ".jpeg", ".png")
MEMORY = 24 << 30  # bytes of the GPU that the detector's batch has to fit
# Peak memory of S3FD per input pixel: 64 float channels three times (before, between and after the layers of conv1),
# and a twentieth for the rest.
BYTES_PER_PIXEL = 806

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Sample:
    """Number of frames to detect and to generate; times are scaled to the whole clip. None: all frames."""

    detection: int | None = None
    generation: int | None = None


@dataclass
class Stages:
    """The times of one clip.

    Attributes:
        seconds: by stage, in the order of the stages, scaled to the whole clip.
        scaled: by stage of which only some frames were processed: how many, and of how many.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, tuple[int, int]] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str, frames: int = 1, of: int = 1) -> Iterator[None]:
        """Add the time of the block to stage `name`; the block processes `frames` of the clip's `of` frames."""
        begin = time.perf_counter()
        yield
        took = time.perf_counter() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + took * of / frames
        if frames < of:
            self.scaled[name] = (frames, of)


def detection_batch(width: int, height: int, memory: float = MEMORY) -> int:
    """Return the batch size: the original's 16, or as many frames as `memory` bytes hold, but at least 1."""
    return max(1, min(DETECTION_BATCH, int(memory // (BYTES_PER_PIXEL * width * height))))


@torch.inference_mode()
def detect(net: S3FD, frames: Sequence[Images] | Images, batch: int = DETECTION_BATCH) -> Boxes:
    """Return the integer corners of the best face in each frame, INT32 [n,4]; the frames are UINT8 [H,W,3] BGR.

    Raises:
        ValueError: no face in a frame.
    """
    found = []
    for start in range(0, len(frames), batch):
        rgb = np.array(frames[start : start + batch])[..., ::-1].astype(np.float32)
        rgb -= np.array(face_detection.RGB_MEANS, np.float32)
        maps = net(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).to(_device(net)))
        for kept in map(_non_max_suppression, np.moveaxis(_candidates([each.cpu() for each in maps]), 1, 0)):
            if not len(kept):
                raise ValueError("no face in a frame")
            found.append(face_detection.to_pixels(kept[0, :4]))
    return np.stack(found)


def _candidates(maps: Sequence[Tensor]) -> Floats:
    """Decode boxes and scores, FP32 [candidates, images, 5], one cell at a time.

    As in the original, a cell with a candidate in one image is decoded for the whole batch, and again for each further
    image with a candidate there. These repetitions are a part of the original's time.
    """
    found = [np.zeros((0, len(maps[0]), 5), np.float32)]
    for stride, score, regression in zip(face_detection.STRIDES, maps[::2], maps[1::2], strict=True):
        face = score.softmax(dim=1)[:, 1]
        side = float(face_detection.PRIOR_SIDE * stride)
        for _, row, column in zip(*np.nonzero(face.numpy() > face_detection.CANDIDATE_SCORE), strict=True):
            prior = torch.tensor([column * stride + stride / 2, row * stride + stride / 2])
            move, grow = regression[:, :2, row, column], regression[:, 2:, row, column]
            size = side * torch.exp(face_detection.SIZE_VARIANCE * grow)
            corner = prior + face_detection.CENTER_VARIANCE * side * move - size / 2
            found.append(torch.cat((corner, corner + size, face[:, row, column, None]), dim=1).numpy()[None])
    return np.concatenate(found)


def _non_max_suppression(found: Floats) -> Floats:
    """Return one image's candidates FP32 [n,5] after non-maximum suppression, best first, with a score over 0.5."""
    x1, y1, x2, y2, scores = found.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = np.argsort(-scores, kind="stable")
    keep = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        shared = np.maximum(0, width) * np.maximum(0, height)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= face_detection.NMS_OVERLAP]
    kept: Floats = found[keep]
    return kept[kept[:, 4] > face_detection.FACE_SCORE]


@torch.inference_mode()
def generate(net: Wav2Lip, crops: Images, windows: Floats, batch: int = GENERATION_BATCH) -> Images:
    """Return generated faces UINT8 [n,96,96,3] for crops UINT8 [n,96,96,3] BGR and mel windows FP32 [n,80,16]."""
    device, mouths = _device(net), []
    for start in range(0, len(crops), batch):
        whole = crops[start : start + batch].astype(np.float32)
        masked = whole.copy()
        masked[:, FACE_SIZE // 2 :] = 0
        face = np.ascontiguousarray(np.concatenate((masked, whole), axis=3).transpose(0, 3, 1, 2) / 255)
        mel = windows[start : start + batch, None]
        mouth = net(torch.from_numpy(mel).to(device), torch.from_numpy(face).to(device)).cpu().numpy()
        mouths.append((mouth.transpose(0, 2, 3, 1) * 255).astype(np.uint8))
    return np.concatenate(mouths)


def crop(frames: Sequence[Images] | Images, face_boxes: Boxes, count: int) -> Images:
    """Return the first `count` crops of the looped frames, UINT8 [count,96,96,3]; none is reused."""
    crops = []
    for i in range(count):
        x1, y1, x2, y2 = face_boxes[i % len(frames)]
        crops.append(cv2.resize(frames[i % len(frames)][y1:y2, x1:x2], (FACE_SIZE, FACE_SIZE)))
    return np.stack(crops).astype(np.uint8, copy=False)


def paste(frames: Sequence[Images] | Images, face_boxes: Boxes, faces: Images, count: int) -> Iterator[Images]:
    """Yield the first `count` of the looped frames with the faces pasted in; fewer faces are looped too."""
    for i in range(count):
        result, (x1, y1, x2, y2) = frames[i % len(frames)].copy(), face_boxes[i % len(frames)]
        result[y1:y2, x1:x2] = cv2.resize(faces[i % len(faces)], (int(x2 - x1), int(y2 - y1)))
        yield result


def clip(
    face: Path,
    speech: Path,
    out: Path,
    detector: Path,
    generator: Wav2Lip,
    ffmpeg: str,
    *,
    batch: int = DETECTION_BATCH,
    sample: Sample | None = None,
) -> Stages:
    """Process an image or video and a recording, write the mp4 `out` (and, while it runs, an AVI next to it).

    Args:
        face: an image, according to its suffix as in the original, or else a video.
        speech: a WAV file, 16 kHz mono.
        out: the result; with a sample, the generated frames are repeated.
        detector: a file, because the original loads its detector for each request (the generator only once).
        generator: the loaded network; its device is used for both networks.
        ffmpeg: the program.
        batch: batch size of the detector.
        sample: which part of the clip to process; by default all of it.

    Raises:
        ValueError: a file is not an image or video, or there is no face in a frame.
    """
    stages, sample = Stages(), sample or Sample()
    with stages.timed("decode"):
        frames, fps = _read(face)
    with stages.timed("speech"):
        audio, rate = soundfile.read(speech, dtype="float32")
        if rate != SAMPLE_RATE:  # librosa.load, which the original uses, would only then do more than this
            raise ValueError(f"{speech}: {rate} Hz instead of {SAMPLE_RATE}")
        windows = mel_windows(mel_spectrogram(audio), fps)
    frames = frames[: len(windows)]
    with stages.timed("detection"):
        net = to_device(load_s3fd(detector), _device(generator))
    indices = _sample_indices(len(frames), sample.detection)
    with stages.timed("detection", len(indices), len(frames)):
        found = detect(net, [frames[i] for i in indices], batch)
    with stages.timed("detection"):
        nearest = np.abs(np.arange(len(frames))[:, None] - indices).argmin(axis=1)
        height, width = frames[0].shape[:2]
        face_boxes = boxes.smooth(boxes.pad(found[nearest], width, height))
    count = min(sample.generation or len(windows), len(windows))
    with stages.timed("generation", count, len(windows)):
        faces = generate(generator, crop(frames, face_boxes, count), windows[:count])
    avi = out.with_suffix(".avi")
    with stages.timed("paste and write"):
        _write_avi(avi, paste(frames, face_boxes, faces, len(windows)), fps, (width, height))
    with stages.timed("mux"):
        arguments = ["-v", "error", "-y", "-i", str(speech), "-i", str(avi), "-q:v", "1", str(out)]
        subprocess.run([ffmpeg, *arguments], check=True, stdin=subprocess.DEVNULL)
        avi.unlink()
    return stages


def _write_avi(path: Path, frames: Iterator[Images], fps: float, size: tuple[int, int]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"DIVX"), fps, size)
    for frame in frames:
        writer.write(frame)
    writer.release()


def to_device(net: Net, device: torch.device) -> Net:
    """Return the network on this device; training-step counters that its checkpoint lacks are set to zero."""
    for module in net.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                module.register_buffer(name, torch.zeros_like(buffer, device=device))
    return net.to(device)


def _read(face: Path) -> tuple[list[Images], float]:
    """Return all frames, UINT8 [H,W,3] BGR, and the frame rate."""
    if face.suffix in STILLS:
        image = cv2.imread(str(face))
        if image is None:
            raise ValueError(f"{face}: not an image")
        return [image.astype(np.uint8)], STILL_FPS
    capture = cv2.VideoCapture(str(face))
    frames: list[Images] = []
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        while (read := capture.read())[0]:
            frames.append(read[1].astype(np.uint8, copy=False))
    finally:
        capture.release()
    if not frames:
        raise ValueError(f"{face}: not a video")
    return frames, fps


def _sample_indices(count: int, wanted: int | None) -> NDArray[np.int64]:
    """Return evenly spaced frame indices."""
    return np.linspace(0, count - 1, min(wanted or count, count)).round().astype(np.int64)


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
