"""Samples of images, faces and speech: some to calibrate int8 with, others to evaluate exports on.

They are made from media files of the user or of the project. A seeded generator moves, mirrors and relights them, so
that one or two faces yield many samples, and adds noise. Calibration and evaluation have different seeds, so that no
export is evaluated on a sample that it was calibrated with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import soundfile
import torch

from lipsync import face_detection, mel, mel_windows, tensors
from lipsync.arrays import Batch, Box, Floats, Image, Sets
from lipsync.errors import InvalidInput
from lipsync.face_crop import crop

from ..errors import ExportError
from ..files import ProgressCallback
from ..networks.inference import S3FDGraph
from .sample_media import Media

MAX_SIDE = 640  # pixels; larger images are scaled down before the detector runs
VIEW_SIZE = (240, 320)  # height and width of the images that the detector is calibrated with
FRAMES_PER_VIDEO = 8  # evenly spread
FPS = 25.0
TIMING_SIZE = (120, 160)  # height and width of the images that the detector is timed with
_CALIBRATION_SEED, _EVALUATION_SEED = 1, 2
_CALIBRATION_BATCH = 8


class Samples:
    """Samples for all networks.

    Args:
        media: the files to make the samples from.
        detector: the FP32 detector, which finds the faces in the files.
        on_progress: takes a line about each image without a face.
    """

    def __init__(self, media: Media, detector: S3FDGraph, on_progress: ProgressCallback) -> None:
        self._media = media
        self._detector = detector
        self._on_progress = on_progress

    def calibration(self, net: tensors.Model) -> list[Batch]:
        """Return batches that cover a network's usual range of values: mostly real samples, some noise."""
        draw = np.random.default_rng(_CALIBRATION_SEED)
        if net is tensors.S3FD:
            images = [*self._views(draw, 28), *_noise_images(draw, 4, *VIEW_SIZE)]
            return [(image[None],) for image in images]
        real, noise = self._crops_and_windows(draw, 48), _noise_faces(draw, 16)
        faces_, mels = (np.concatenate(pair) for pair in zip(real, noise, strict=True))
        order = draw.permutation(len(faces_))
        steps = range(0, len(order), _CALIBRATION_BATCH)
        return [(faces_[order[i : i + _CALIBRATION_BATCH]], mels[order[i : i + _CALIBRATION_BATCH]]) for i in steps]

    def evaluation(self, net: tensors.Model) -> Sets:
        """Return sets for comparing an export with its network, in batches and images of several sizes."""
        draw = np.random.default_rng(_EVALUATION_SEED)
        if net is tensors.S3FD:
            views = [*self._images[:2], *self._views(draw, 4)]
            noise = [np.stack(_noise_images(draw, 3, 160, 90)), np.stack(_noise_images(draw, 1, 96, 128))]
            return {"images": [(image[None],) for image in views], "noise": [(batch,) for batch in noise]}
        real, noise_faces = self._crops_and_windows(draw, 16), _noise_faces(draw, 8)
        return {"crops": _split(real, (1, 15)), "noise": _split(noise_faces, (3, 5))}

    @cached_property
    def _images(self) -> list[Image]:
        return [_fit(image) for path in self._media.frames for image in _read(path)]

    @cached_property
    def _windows(self) -> Floats:
        """FP32 [n,80,16]."""
        return np.concatenate([_mel_windows(path) for path in self._media.speech])

    @cached_property
    def _faces(self) -> list[tuple[Image, Box]]:
        """Images with the box of the best face in each, or a box in the middle if there is no face."""
        found = []
        for image in self._images:
            with torch.inference_mode():
                boxes, scores = self._detector(torch.from_numpy(image[None]))
            kept, kept_scores = face_detection.non_max_suppression(boxes.numpy(), scores.numpy())
            box = face_detection.best_face(kept[0], kept_scores[0])
            found.append((image, _middle_box(image) if box is None else _clip(image, box)))
            if box is None:
                self._on_progress("no face found in an image for calibration: using its middle")
        return found

    def _crops_and_windows(self, draw: np.random.Generator, count: int) -> Batch:
        """Return crops UINT8 [count,96,96,3], moved by up to 15 % of the box, and mel windows FP32 [count,80,16]."""
        windows = self._windows  # before the detector runs, so that a file that is no speech fails at once
        crops = []
        for i in range(count):
            image, box = self._faces[i % len(self._faces)]
            size = np.tile(box[2:] - box[:2], 2)
            moved = _clip(image, (box + size * draw.uniform(-0.15, 0.15, 4)).astype(np.int32))
            crops.append(_relight(draw, crop(image[None], moved[None])[0]))
        return np.stack(crops), windows[draw.integers(len(windows), size=count)]

    def _views(self, draw: np.random.Generator, count: int) -> list[Image]:
        """Return images UINT8 [240,320,3]: a sample in 50 to 100 % of that size, at a random place on gray."""
        height, width = VIEW_SIZE
        views = []
        for i in range(count):
            image = self._images[i % len(self._images)]
            scale = draw.uniform(0.5, 1) * min(height / image.shape[0], width / image.shape[1])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            view = np.full((height, width, 3), 127, np.uint8)
            y = draw.integers(height - small.shape[0] + 1)
            x = draw.integers(width - small.shape[1] + 1)
            view[y : y + small.shape[0], x : x + small.shape[1]] = small
            views.append(_relight(draw, view))
        return views


def timing(net: tensors.Model, batch: int) -> Batch:
    """Return one batch of noise to time a network with.

    The images for S3FD are the smallest for which each of its maps has several cells.
    """
    draw = np.random.default_rng(batch)
    if net is tensors.S3FD:
        return (np.stack(_noise_images(draw, batch, *TIMING_SIZE)),)
    return _noise_faces(draw, batch)


def _read(path: Path) -> list[Image]:
    """Read an image, or `FRAMES_PER_VIDEO` frames of a video.

    Raises:
        ExportError: the file is neither.
    """
    image = cv2.imread(str(path))
    if image is not None:
        return [image.astype(np.uint8)]
    video = cv2.VideoCapture(str(path))
    try:
        length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        found = []
        for position in np.linspace(0, max(0, length - 1), FRAMES_PER_VIDEO).astype(int) if length > 0 else ():
            video.set(cv2.CAP_PROP_POS_FRAMES, float(position))
            ok, frame = video.read()
            if ok:
                found.append(frame.astype(np.uint8))
    finally:
        video.release()
    if not found:
        raise ExportError(f"{path}: neither an image nor a video; check --frames")
    return found


def _mel_windows(path: Path) -> Floats:
    import soxr  # only samples of speech need it, and a bare machine with a GPU (bench/gpu) lacks it

    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        speech = soxr.resample(channels.mean(axis=1), rate, mel.SAMPLE_RATE)
        return mel_windows.mel_windows(mel.mel_spectrogram(speech), FPS)
    except (soundfile.SoundFileError, InvalidInput) as error:  # InvalidInput: the recording is too short
        raise ExportError(f"{path}: cannot be read as speech; check --speech") from error


def _fit(image: Image) -> Image:
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _middle_box(image: Image) -> Box:
    height, width = image.shape[:2]
    return np.array([width // 4, height // 4, width - width // 4, height - height // 4], np.int32)


def _clip(image: Image, box: Box) -> Box:
    """Return the part of a box inside the image, at least 8 pixels wide and high."""
    height, width = image.shape[:2]
    x1, y1 = np.clip(box[:2], 0, (width - 8, height - 8))
    x2, y2 = np.clip(box[2:], (x1 + 8, y1 + 8), (width, height))
    return np.array([x1, y1, x2, y2], np.int32)


def _relight(draw: np.random.Generator, image: Image) -> Image:
    """Return the image with another contrast and brightness, and mirrored or not."""
    if draw.random() < 0.5:
        image = image[:, ::-1]
    lit = image * draw.uniform(0.7, 1.3) + draw.uniform(-20, 20)
    return np.clip(lit, 0, 255).astype(np.uint8)


def _noise_faces(draw: np.random.Generator, count: int) -> Batch:
    shape = (count, tensors.FACE_SIZE, tensors.FACE_SIZE, 3)
    mels = draw.uniform(-mel.PEAK, mel.PEAK, (count, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS))
    return draw.integers(0, 256, shape, np.uint8), mels.astype(np.float32)


def _noise_images(draw: np.random.Generator, count: int, height: int, width: int) -> list[Image]:
    return list(draw.integers(0, 256, (count, height, width, 3), np.uint8))


def _split(samples: Batch, sizes: Sequence[int]) -> list[Batch]:
    ends = np.cumsum(sizes)
    return [tuple(array[end - size : end] for array in samples) for size, end in zip(sizes, ends, strict=True)]
