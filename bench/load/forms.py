"""Make the forms of a load: each has its own portrait (or video) and speech, all of one size and length."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import soundfile

from export.variants import Precision

from ..comparison.generated_media import Files, UniqueCopies, files, frames
from ..comparison.workloads import SIZES, Kind, Workload

STEP = 5  # frames of a moving head from one portrait to the next


@dataclass(frozen=True)
class Size:
    """What every form of a load has: the kind and the height of its face, and seconds of speech."""

    kind: Kind
    height: int
    seconds: float

    @property
    def text(self) -> str:
        """The size in words."""
        return f"{self.kind} {SIZES[self.height]}×{self.height}, {self.seconds:g} s"


class FormMaker:
    """Makes forms that the service has not seen.

    Args:
        size: of every form.
        media: folder for files that are kept between runs.
        folder: folder for the forms; its owner removes it.
    """

    def __init__(self, size: Size, media: Path, folder: Path) -> None:
        self._folder, self._width, self._height = folder, SIZES[size.height], size.height
        self._kind = size.kind
        self._originals = files(Workload(size.kind, self._width, self._height, size.seconds, Precision.INT8), media)
        self._copies, self._speeches = UniqueCopies(folder), count()
        self._portraits: list[Path] = []

    def make(self, number: int) -> list[Files]:
        """Return `number` forms. Raises OSError."""
        faces = self._faces(number)
        return [Files(self._copies.of(face), self._speech(part / number)) for part, face in enumerate(faces)]

    def _faces(self, number: int) -> list[Path]:
        """Return different portraits; of videos the same one each time, because it is large."""
        if self._kind is Kind.VIDEO:
            return [self._originals.face] * number
        if len(self._portraits) < number:
            self._portraits = [self._folder / f"portrait-{index}.png" for index in range(number)]
            drawn = islice(frames(self._width, self._height, number * STEP), 0, None, STEP)
            for path, image in zip(self._portraits, drawn, strict=True):
                if not cv2.imwrite(str(path), image):
                    raise OSError(f"{path}: cannot be written")
        return self._portraits[:number]

    def _speech(self, start: float) -> Path:
        """Return the speech, from this part of its length on; what is before it comes at the end."""
        sound, rate = soundfile.read(self._originals.speech, dtype="int16")
        path = self._folder / f"speech-{next(self._speeches)}.wav"
        soundfile.write(path, np.roll(sound, -round(start * len(sound))), rate)
        return path
