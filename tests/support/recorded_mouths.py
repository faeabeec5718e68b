"""Networks that record what a job sends to the generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avatar.generation.chunks import FIRST_FRAMES, max_chunk_frames
from avatar.inference.protocol import ModelInfo
from avatar.options import Generator
from avatar.testing import FaceFinder, FakeInference, face_in_the_middle
from lipsync.arrays import Floats, Images
from tests.support.media import Frames

CHUNK_FRAMES = max_chunk_frames(ModelInfo().generator_net)


class Recorder(FakeInference):
    """Records the windows and the mouths of each call of `wav2lip`."""

    def __init__(self, face: FaceFinder = face_in_the_middle, *, darken: bool = False) -> None:
        super().__init__(face, darken=darken)
        self.recorded: list[tuple[Floats, Frames]] = []

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        mouths = await super().wav2lip(faces, windows, generator)
        self.recorded.append((windows, mouths))
        return mouths

    def in_order(self, windows: Floats) -> Frames:
        """Return the mouths in the order of the clip's windows; calls that overlap are recorded in any order."""
        clip: dict[int, Frames] = {}
        chunks = list(chunks_of(windows))
        for chunk, mouths in self.recorded:
            places = [
                place
                for place, expected in enumerate(chunks)
                if chunk.shape == expected.shape and np.allclose(chunk, expected, atol=1e-4)
            ]
            assert len(places) == 1
            clip[places[0]] = mouths
        return np.concatenate([clip[place] for place in range(len(chunks))])


def chunks_of(windows: Floats) -> Iterator[Floats]:
    """Yield the windows of each chunk."""
    size = FIRST_FRAMES
    while len(windows):
        yield windows[:size]
        windows, size = windows[size:], min(2 * size, CHUNK_FRAMES)
