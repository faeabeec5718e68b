"""The original algorithm, stated plainly: PyTorch eager, fp32, the whole clip at once, its own batch sizes.

Not the original's code: the same steps in the same order, over this project's nets and arithmetic, so that
one run can time both. Held to the golden data in `tests/bench`.
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
import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.checkpoints.load import load_s3fd
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from lipsync import boxes, face_detection
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import FACE_SIZE

DETECTION_BATCH, GENERATION_BATCH = 16, 32
STILL_FPS = 25.0
STILLS = (".jpg", ".jpeg", ".png")
MEMORY = 24 << 30  # bytes; the card that the detector's batch has to fit
# What S3FD holds of a picture at its widest: 64 channels of floats three times, before, between and after the parts
# of conv1; and a twentieth for the rest.
BYTES_A_PIXEL = 806

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float32]
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Sample:
    """How many pictures of a clip it looks for faces in and how many mouths it makes; the rest is scaled. None: all."""

    detection: int | None = None
    generation: int | None = None


@dataclass
class Stages:
    """What a clip took.

    Attributes:
        seconds: by stage, in the order they ran, scaled to the whole clip.
        scaled: the stages of which only a part ran, to how many frames of how many.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    scaled: dict[str, tuple[int, int]] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str, frames: int = 1, of: int = 1) -> Iterator[None]:
        """Time what runs inside as (a further) part of stage `name`: `frames` of the clip's `of` frames."""
        begin = time.perf_counter()
        yield
        took = time.perf_counter() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + took * of / frames
        if frames < of:
            self.scaled[name] = (frames, of)


def detection_batch(width: int, height: int, memory: float = MEMORY) -> int:
    """The original's 16 pictures, or as many as `memory` bytes hold, and one at least."""
    return max(1, min(DETECTION_BATCH, int(memory // (BYTES_A_PIXEL * width * height))))


@torch.inference_mode()
def detect(net: S3FD, frames: Sequence[Pictures] | Pictures, batch: int = DETECTION_BATCH) -> NDArray[np.int32]:
    """Frames UINT8 [H,W,3] BGR to the int corners of each one's best face, INT32 [n,4].

    Raises:
        ValueError: a frame without a face.
    """
    found = []
    for start in range(0, len(frames), batch):
        rgb = np.array(frames[start : start + batch])[..., ::-1].astype(np.float32)
        rgb -= np.array(face_detection.RGB_MEANS, np.float32)
        maps = net(torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).to(_device(net)))
        for kept in map(_suppress, np.moveaxis(_candidates([each.cpu() for each in maps]), 1, 0)):
            if not len(kept):
                raise ValueError("a frame without a face")
            found.append(face_detection.to_pixels(kept[0, :4]))
    return np.stack(found)


def _candidates(maps: Sequence[Tensor]) -> Floats:
    """Boxes and scores FP32 [candidates, pictures, 5], one cell at a time.

    A cell that holds a candidate of one picture is decoded for all of the batch, as the original does it, and again
    for each further picture that has one there: those repetitions are a part of its time.
    """
    found = [np.zeros((0, len(maps[0]), 5), np.float32)]
    for stride, score, regression in zip(face_detection.STRIDES, maps[::2], maps[1::2], strict=True):
        face = score.softmax(dim=1)[:, 1]
        side = float(face_detection.PRIOR_SIDE * stride)
        for _, row, column in zip(*np.nonzero(face.numpy() > face_detection.CANDIDATE_SCORE), strict=True):
            prior = torch.tensor([column * stride + stride / 2, row * stride + stride / 2])
            move, grow = regression[:, :2, row, column], regression[:, 2:, row, column]
            size = side * torch.exp(face_detection.SIZE_VARIANCE * grow)
            corner = prior + face_detection.CENTRE_VARIANCE * side * move - size / 2
            found.append(torch.cat((corner, corner + size, face[:, row, column, None]), dim=1).numpy()[None])
    return np.concatenate(found)


def _suppress(found: Floats) -> Floats:
    """One picture's candidates FP32 [n,5] after non-maximum suppression, best first, those over 0.5."""
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
def generate(net: Wav2Lip, crops: Pictures, windows: Floats, batch: int = GENERATION_BATCH) -> Pictures:
    """Crops UINT8 [n,96,96,3] BGR and mel windows FP32 [n,80,16] to mouths UINT8 [n,96,96,3]."""
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


def cut(frames: Sequence[Pictures] | Pictures, at: NDArray[np.int32], count: int) -> Pictures:
    """The first `count` crops UINT8 [count,96,96,3] of the looped frames; a still's is made each time anew, too."""
    crops = []
    for i in range(count):
        x1, y1, x2, y2 = at[i % len(frames)]
        crops.append(cv2.resize(frames[i % len(frames)][y1:y2, x1:x2], (FACE_SIZE, FACE_SIZE)))
    return np.stack(crops).astype(np.uint8, copy=False)


def pasted(
    frames: Sequence[Pictures] | Pictures, at: NDArray[np.int32], mouths: Pictures, count: int
) -> Iterator[Pictures]:
    """The first `count` of the looped frames with a mouth each; of fewer mouths, these are looped too."""
    for i in range(count):
        result, (x1, y1, x2, y2) = frames[i % len(frames)].copy(), at[i % len(frames)]
        result[y1:y2, x1:x2] = cv2.resize(mouths[i % len(mouths)], (int(x2 - x1), int(y2 - y1)))
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
    """A picture or video and a recording to an mp4, `out`; its intermediate AVI stands beside it while it runs.

    Args:
        face: a still by its suffix, as there, or else a video.
        speech: what ffmpeg decodes.
        out: the result; of a sampled clip the rest of the frames repeat what was made.
        detector: a file, because the original reads its detector anew for each request (the generator only once).
        generator: loaded, on the device that both nets run on.
        ffmpeg: the program.
        batch: pictures that the detector is given at once.
        sample: what is done of it; by default all.

    Raises:
        ValueError: a file that is no picture or video, or a frame without a face.
    """
    stages, sample = Stages(), sample or Sample()
    with stages.timed("decode"):
        frames, fps = _read(face)
    with stages.timed("speech"):
        sound, _ = librosa.load(speech, sr=SAMPLE_RATE)
        windows = mel_windows(mel_spectrogram(sound), fps)
    frames = frames[: len(windows)]
    with stages.timed("detection"):
        net = on(load_s3fd(detector), _device(generator))
    picks = _picks(len(frames), sample.detection)
    with stages.timed("detection", len(picks), len(frames)):
        found = detect(net, [frames[i] for i in picks], batch)
    with stages.timed("detection"):
        nearest = np.abs(np.arange(len(frames))[:, None] - picks).argmin(axis=1)
        height, width = frames[0].shape[:2]
        at = boxes.smooth(boxes.pad(found[nearest], width, height))
    made = min(sample.generation or len(windows), len(windows))
    with stages.timed("generation", made, len(windows)):
        mouths = generate(generator, cut(frames, at, made), windows[:made])
    with stages.timed("paste and write"):
        avi = out.with_suffix(".avi")
        writer = cv2.VideoWriter(str(avi), cv2.VideoWriter.fourcc(*"DIVX"), fps, (width, height))
        for result in pasted(frames, at, mouths, len(windows)):
            writer.write(result)
        writer.release()
    with stages.timed("mux"):
        arguments = ["-v", "error", "-y", "-i", str(speech), "-i", str(avi), "-q:v", "1", str(out)]
        subprocess.run([ffmpeg, *arguments], check=True, stdin=subprocess.DEVNULL)
        avi.unlink()
    return stages


def on(net: Net, device: torch.device) -> Net:
    """The net, moved there; counters of training steps that its checkpoint lacks are zero."""
    for module in net.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                module.register_buffer(name, torch.zeros_like(buffer, device=device))
    return net.to(device)


def _read(face: Path) -> tuple[list[Pictures], float]:
    """All pictures UINT8 [H,W,3] BGR, and how many a second."""
    if face.suffix in STILLS:
        picture = cv2.imread(str(face))
        if picture is None:
            raise ValueError(f"{face}: not a picture")
        return [picture.astype(np.uint8)], STILL_FPS
    capture = cv2.VideoCapture(str(face))
    frames: list[Pictures] = []
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        while (read := capture.read())[0]:
            frames.append(read[1].astype(np.uint8, copy=False))
    finally:
        capture.release()
    if not frames:
        raise ValueError(f"{face}: not a video")
    return frames, fps


def _picks(count: int, wanted: int | None) -> NDArray[np.int64]:
    """Frames, evenly spread."""
    return np.linspace(0, count - 1, min(wanted or count, count)).round().astype(np.int64)


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
