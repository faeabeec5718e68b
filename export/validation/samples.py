"""Pictures, faces and speech to calibrate with, and others to verify on.

They come from media that the user names or from those that ship with the project, moved, mirrored and relit by a
seeded generator, so that a face or two stand for many; seeded noise stands beside them. Every draw has its own
seed: nothing that an export is calibrated with is seen again when it is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import librosa
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from lipsync import face_detection, mel, mel_windows, tensors
from lipsync.crop import crop
from lipsync.errors import InvalidInput

from ..errors import ExportError
from ..formats.onnx_model import Array
from ..networks.inference import S3FDGraph
from .sample_media import Media

Picture = NDArray[np.uint8]  # [H,W,3] BGR
Batch = tuple[Array, ...]  # one batch of a net's inputs, in the table's order
Sets = Mapping[str, Sequence[Batch]]  # the name of a set of samples to its batches

SIDE = 640  # pixels, the longest side of a picture that faces are looked for in
VIEW = (240, 320)  # height and width of a picture that the detector is calibrated with
FRAMES = 8  # pictures that are taken of a video, evenly spread
FPS = 25.0
_CALIBRATION, _VERIFICATION = 1, 2  # seeds
_CALIBRATION_BATCH = 8


class Samples:
    """What the nets are calibrated and verified with.

    Args:
        media: the files.
        detector: finds the faces in the frames; the FP32 graph of the checkpoint at hand.
        on_progress: takes a line about each picture without a face.
    """

    def __init__(self, media: Media, detector: S3FDGraph, on_progress: Callable[[str], None]) -> None:
        self._media = media
        self._detector = detector
        self._on_progress = on_progress

    def calibration(self, net: tensors.Model) -> list[Batch]:
        """Batches that show a net's usual range of values: mostly real ones, some noise."""
        draw = np.random.default_rng(_CALIBRATION)
        if net is tensors.S3FD:
            pictures = [*self._views(draw, 28), *_noise_pictures(draw, 4, *VIEW)]
            return [(picture[None],) for picture in pictures]
        real, noise = self._speaking(draw, 48), _noise_faces(draw, 16)
        faces_, mels = (np.concatenate(pair) for pair in zip(real, noise, strict=True))
        order = draw.permutation(len(faces_))
        steps = range(0, len(order), _CALIBRATION_BATCH)
        return [(faces_[order[i : i + _CALIBRATION_BATCH]], mels[order[i : i + _CALIBRATION_BATCH]]) for i in steps]

    def verification(self, net: tensors.Model) -> Sets:
        """Sets to compare an export with its net on, in batches and pictures of several sizes."""
        draw = np.random.default_rng(_VERIFICATION)
        if net is tensors.S3FD:
            views = [*self._pictures[:2], *self._views(draw, 4)]
            noise = [np.stack(_noise_pictures(draw, 3, 160, 90)), np.stack(_noise_pictures(draw, 1, 96, 128))]
            return {"pictures": [(picture[None],) for picture in views], "noise": [(batch,) for batch in noise]}
        real, noise_ = self._speaking(draw, 16), _noise_faces(draw, 8)
        return {"crops": _split(real, (1, 15)), "noise": _split(noise_, (3, 5))}

    @cached_property
    def _pictures(self) -> list[Picture]:
        return [_bounded(picture) for path in self._media.frames for picture in _read(path)]

    @cached_property
    def _windows(self) -> NDArray[np.float32]:
        """FP32 [n,80,16]."""
        return np.concatenate([_listen(path) for path in self._media.speech])

    @cached_property
    def _faces(self) -> list[tuple[Picture, NDArray[np.int32]]]:
        """Pictures with the box of the best face in each; the middle of those that show none."""
        found = []
        for picture in self._pictures:
            with torch.inference_mode():
                boxes, scores = self._detector(torch.from_numpy(picture[None]))
            kept, kept_scores = face_detection.non_max_suppression(boxes.numpy(), scores.numpy())
            box = face_detection.best_face(kept[0], kept_scores[0])
            found.append((picture, _middle(picture) if box is None else _inside(picture, box)))
            if box is None:
                self._on_progress("a picture to calibrate with shows this detector no face: its middle is taken")
        return found

    def _speaking(self, draw: np.random.Generator, count: int) -> Batch:
        """Crops UINT8 [count,96,96,3], moved by up to 15 % of the box, and mel windows FP32 [count,80,16]."""
        crops = []
        for i in range(count):
            picture, box = self._faces[i % len(self._faces)]
            size = np.tile(box[2:] - box[:2], 2)
            moved = _inside(picture, (box + size * draw.uniform(-0.15, 0.15, 4)).astype(np.int32))
            crops.append(_relit(draw, crop(picture[None], moved[None])[0]))
        return np.stack(crops), self._windows[draw.integers(len(self._windows), size=count)]

    def _views(self, draw: np.random.Generator, count: int) -> list[Picture]:
        """Pictures UINT8 [240,320,3]: one scaled to between half and all of that, anywhere on a grey ground."""
        height, width = VIEW
        views = []
        for i in range(count):
            picture = self._pictures[i % len(self._pictures)]
            scale = draw.uniform(0.5, 1) * min(height / picture.shape[0], width / picture.shape[1])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            view = np.full((height, width, 3), 127, np.uint8)
            y = draw.integers(height - small.shape[0] + 1)
            x = draw.integers(width - small.shape[1] + 1)
            view[y : y + small.shape[0], x : x + small.shape[1]] = small
            views.append(_relit(draw, view))
        return views


def timing(net: tensors.Model, batch: int) -> Batch:
    """One batch to time a net with: noise, of the smallest picture that all of S3FD's maps have several cells for."""
    draw = np.random.default_rng(batch)
    if net is tensors.S3FD:
        return (np.stack(_noise_pictures(draw, batch, *TIMING_SIZE)),)
    return _noise_faces(draw, batch)


TIMING_SIZE = (120, 160)  # height and width


def _read(path: Path) -> list[Picture]:
    """A picture, or `FRAMES` pictures of a video.

    Raises:
        ExportError: it is neither.
    """
    picture = cv2.imread(str(path))
    if picture is not None:
        return [picture.astype(np.uint8)]
    video = cv2.VideoCapture(str(path))
    try:
        length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        found = []
        for place in np.linspace(0, max(0, length - 1), FRAMES).astype(int) if length > 0 else ():
            video.set(cv2.CAP_PROP_POS_FRAMES, float(place))
            there, frame = video.read()
            if there:
                found.append(frame.astype(np.uint8))
    finally:
        video.release()
    if not found:
        raise ExportError(f"{path}: neither a picture nor a video; it was named for calibration (--frames)")
    return found


def _listen(path: Path) -> NDArray[np.float32]:
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        speech = librosa.resample(channels.mean(axis=1), orig_sr=rate, target_sr=mel.SAMPLE_RATE)
        return mel_windows.mel_windows(mel.mel_spectrogram(speech), FPS)
    except (soundfile.SoundFileError, InvalidInput) as error:  # InvalidInput: too short
        raise ExportError(f"{path}: no speech that can be read; it was named for calibration (--speech)") from error


def _bounded(picture: Picture) -> Picture:
    scale = SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _middle(picture: Picture) -> NDArray[np.int32]:
    height, width = picture.shape[:2]
    return np.array([width // 4, height // 4, width - width // 4, height - height // 4], np.int32)


def _inside(picture: Picture, box: NDArray[np.int32]) -> NDArray[np.int32]:
    """The part of a box that lies in the picture, at least 8 pixels wide and high."""
    height, width = picture.shape[:2]
    x1, y1 = np.clip(box[:2], 0, (width - 8, height - 8))
    x2, y2 = np.clip(box[2:], (x1 + 8, y1 + 8), (width, height))
    return np.array([x1, y1, x2, y2], np.int32)


def _relit(draw: np.random.Generator, picture: Picture) -> Picture:
    """Mirrored or not, of another contrast and brightness."""
    if draw.random() < 0.5:
        picture = picture[:, ::-1]
    lit = picture * draw.uniform(0.7, 1.3) + draw.uniform(-20, 20)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _noise_faces(draw: np.random.Generator, count: int) -> Batch:
    shape = (count, tensors.FACE_SIZE, tensors.FACE_SIZE, 3)
    sounds = draw.uniform(-mel.PEAK, mel.PEAK, (count, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS))
    return draw.integers(0, 256, shape, np.uint8), sounds.astype(np.float32)


def _noise_pictures(draw: np.random.Generator, count: int, height: int, width: int) -> list[Picture]:
    return list(draw.integers(0, 256, (count, height, width, 3), np.uint8))


def _split(samples: Batch, sizes: Sequence[int]) -> list[Batch]:
    ends = np.cumsum(sizes)
    return [tuple(array[end - size : end] for array in samples) for size, end in zip(sizes, ends, strict=True)]
