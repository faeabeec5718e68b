"""Judge exports by a few small samples.

An export is judged on 24 mouths and on images of up to 640 pixels, for stand-ins twice. The tests need the exported
files and not such a thorough judgment; tests/export/validation checks the samples themselves.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
import soundfile

from export.build import selection
from export.checkpoints.provenance import Provenance
from export.validation.accuracy import Result
from export.validation.sample_media import Media
from export.validation.samples import Samples
from lipsync import tensors
from lipsync.arrays import Batch, Sets

SIDE = 160  # pixels of the images' longer side
SPEECH_SAMPLES = 16_000


class FewSamples(Samples):
    """One batch of each set: the first image or crop, and the smallest noise."""

    def evaluation(self, net: tensors.Model) -> Sets:
        """Return the smallest part of each set that an export is compared with."""
        sets = super().evaluation(net)
        return {name: [min(batches, key=_size) if name == "noise" else batches[0]] for name, batches in sets.items()}


def _size(batch: Batch) -> int:
    return sum(array.size for array in batch)


@contextmanager
def few_samples() -> Iterator[None]:
    """Let exports be judged by `FewSamples` until the block is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "Samples", FewSamples)
        yield


@contextmanager
def copied_segmentation(exported: Path) -> Iterator[None]:
    """Let exports of `segmentation` be a copy of `exported` until the block is left: TensorFlow takes ten seconds."""

    def copy(_: Path, path: Path, provenance: Provenance) -> Result:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported, path)
        return Result(provenance.kind, "images", 1, 0.0, 0.0, 1.0, 1.0, 0.999)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "export_segmentation", copy)
        yield


def small_media(folder: Path) -> Media:
    """Write the shipped images in a small size and a second of the shipped speech; return them."""
    folder.mkdir(exist_ok=True)
    shipped = Media.shipped()
    frames = [folder / path.name for path in shipped.frames]
    for source, target in zip(shipped.frames, frames, strict=True):
        image = cv2.imread(str(source))
        scale = SIDE / max(image.shape[:2])
        cv2.imwrite(str(target), cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    speech, rate = soundfile.read(shipped.speech[0], stop=SPEECH_SAMPLES)
    soundfile.write(folder / "speech.wav", speech, rate)
    return Media(tuple(frames), (folder / "speech.wav",))
