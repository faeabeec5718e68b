"""A fake inference client for tests: real arithmetic before and after the networks, no networks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from lipsync.arrays import Array, Floats, Image, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import FACES, PERSON

from .inference.protocol import ModelInfo, ServedNet
from .options import Generator

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
FaceFinder = Callable[[Image], Box | None]  # of UINT8 [H,W,3] BGR


def face_in_the_middle(image: Image) -> Box:
    """Return a box in the middle of any image."""
    height, width = image.shape[:2]
    return (width * 0.25, height * 0.25, width * 0.75, height * 0.75)


class FakeInference:
    """Implements `InferenceClient`. Each call waits for its gate, if any, then raises its failure, if any.

    Attributes:
        calls: number of calls of each method.
        running, max_running: calls of each method in progress, now and at most.
        frame_count: images passed to `detect_faces`.
        generators: generators that `wav2lip` was called with.
        window_count: windows passed to `wav2lip`.
        versions: what `pinned` was called with.
        info: what `model_info` returns; by default, the networks are served as on a CPU.
        gates: the event that calls of a method wait for, by its name.
        failures: the error that calls of a method raise, by its name.
    """

    def __init__(
        self,
        face: FaceFinder = face_in_the_middle,
        *,
        darken: bool = False,
        stand_ins: Iterable[str] = (),
        failures: Mapping[str, Exception] | None = None,
        export: str = "",
    ) -> None:
        """Prepare the client.

        Args:
            face: returns the box of the face in an image, or None.
            darken: whether the lower half of a mouth gets darker with the loudness of its window.
            stand_ins: what `model_info` returns as stand-ins.
            failures: the error that calls of a method raise, by its name.
            export: identifies the models, for caches.
        """
        self._face, self._darken = face, darken
        self.info = ModelInfo(tuple(stand_ins), export, export)
        self.failures = dict(failures or {})
        self.gates: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.max_running: Counter[str] = Counter()
        self.generators: set[Generator] = set()
        self.versions: list[Mapping[str, str]] = []
        self.frame_count = self.window_count = 0
        self.closed = False

    async def check_ready(self) -> None:
        """As in `InferenceClient`."""
        async with self._call("check_ready"):
            pass

    async def model_info(self, generator: Generator) -> ModelInfo:
        """As in `InferenceClient`."""
        async with self._call("model_info"):
            return self.info

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As in `InferenceClient`, with the real arithmetic."""
        async with self._call("mel_windows"):
            return await asyncio.to_thread(lambda: mel_windows(mel_spectrogram(audio), fps))

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As in `InferenceClient`; each image has one face at most, the one that `face` returns."""
        self.frame_count += len(frames)
        async with self._call("detect_faces"):
            _check_rows("frames", frames, self.info.detector_net)
            boxes = np.zeros((len(frames), FACES, 4), np.float32)
            scores = np.zeros((len(frames), FACES), np.float32)
            for n, frame in enumerate(frames):
                if face := self._face(frame):
                    boxes[n, 0], scores[n, 0] = face, 0.99
            return boxes, scores

    async def wav2lip(self, faces: Images, windows: Floats, generator: Generator) -> Images:
        """As in `InferenceClient`; a mouth is the face itself, or darkened."""
        self.generators.add(generator)
        self.window_count += len(windows)
        async with self._call("wav2lip"):
            _check_rows("mel", windows, self.info.generator_net)
            return darkened(faces, windows) if self._darken else faces.copy()

    async def segment(self, image: Images) -> Labels:
        """As in `InferenceClient`; red pixels are a person, as for the stand-in checkpoint."""
        async with self._call("segment"):
            red, blue = image[:, :, 0].astype(np.int32), image[:, :, 2].astype(np.int32)
            return np.where(red - blue > 40, PERSON, 0).astype(np.int32)

    def pinned(self, versions: Mapping[str, str]) -> FakeInference:
        """As in `InferenceClient`; all versions do the same."""
        self.versions.append(versions)
        return self

    async def close(self) -> None:
        """As in `InferenceClient`."""
        self.closed = True

    @asynccontextmanager
    async def _call(self, name: str) -> AsyncIterator[None]:
        self.calls[name] += 1
        self.running[name] += 1
        self.max_running[name] = max(self.max_running[name], self.running[name])
        try:
            await asyncio.sleep(0)
            if gate := self.gates.get(name):
                await gate.wait()
            if failure := self.failures.get(name):
                raise failure
            yield
        finally:
            self.running[name] -= 1


def _check_rows(name: str, rows: Array, net: ServedNet) -> None:
    if len(rows) > net.max_batch:
        raise InvalidInput(f"{name}: at most {net.max_batch} expected, got {len(rows)}")


def darkened(mouths: Images, windows: Floats) -> Images:
    """Darken the lower half of crops UINT8 [n,96,96,3] by the loudness of their windows FP32 [n,80,16]."""
    loudness = np.clip(windows.mean(axis=(1, 2)) / 8 + 0.5, 0, 1)
    result = mouths.copy()
    lower = result[:, result.shape[1] // 2 :]
    lower[:] = (lower * (1 - loudness)[:, None, None, None]).astype(np.uint8)
    return result
