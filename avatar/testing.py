"""Models without nets, for tests: the real arithmetic around them, and an instant in place of each net."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from lipsync.arrays import Boxes, Floats, Images, Labels
from lipsync.errors import InvalidInput
from lipsync.face_crop import crop
from lipsync.mel import mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import FACES, PERSON, S3FD_BATCH, WAV2LIP_BATCH

from .inference.protocol import Frames, ModelInfo
from .options import Generator

Box = tuple[float, float, float, float]


def face_in_the_middle(picture: Images) -> Box:
    """A face in the middle of any picture."""
    height, width = picture.shape[:2]
    return (width * 0.25, height * 0.25, width * 0.75, height * 0.75)


class FakeInference:
    """Implements `Models`. Every call first waits for its gate, if it has one, then fails if it is told to.

    Attributes:
        calls: how often each method was called.
        running, most_running: calls of each method under way, now and at most.
        frames: pictures that detection has been given.
        nets: generators that `lipsync` was asked for.
        mouths: windows that `lipsync` has been given.
        sent: bytes of pictures that `lipsync` has been given.
        gates: a method's name to an event that its calls wait for.
        failures: a method's name to what its calls raise.
    """

    def __init__(
        self,
        face: Callable[[Images], Box | None] = face_in_the_middle,
        *,
        darken: bool = False,
        stand_ins: Iterable[str] = (),
        failures: Mapping[str, Exception] | None = None,
        export: str = "",
    ) -> None:
        """`face` finds the face in a picture; `darken` blackens the lower half of a mouth as its window is loud;
        `export` names the nets, for caches."""
        self._export = export
        self._face, self._darken, self._stand_ins = face, darken, tuple(stand_ins)
        self.failures = dict(failures or {})
        self.gates: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.max_running: Counter[str] = Counter()
        self.generators: set[Generator] = set()
        self.frame_count = self.window_count = self.bytes_sent = 0
        self.closed = False

    async def check_ready(self) -> None:
        """As `Models`."""
        async with self._call("check_ready"):
            pass

    async def model_info(self, net: Generator) -> ModelInfo:
        """As `Models`."""
        async with self._call("model_info"):
            return ModelInfo(self._stand_ins, self._export, self._export)

    async def mel_windows(self, audio: Floats, fps: float) -> Floats:
        """As `Models`, with the real arithmetic."""
        async with self._call("mel_windows"):
            return await asyncio.to_thread(lambda: mel_windows(mel_spectrogram(audio), fps))

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """As `Models`; the only face of each picture is the one that `face` finds."""
        self.frame_count += len(frames)
        async with self._call("detect_faces"):
            if len(frames) > S3FD_BATCH:
                raise InvalidInput(f"frames: at most {S3FD_BATCH}")
            boxes = np.zeros((len(frames), FACES, 4), np.float32)
            scores = np.zeros((len(frames), FACES), np.float32)
            for n, frame in enumerate(frames):
                if face := self._face(frame):
                    boxes[n, 0], scores[n, 0] = face, 0.99
            return boxes, scores

    async def lipsync(self, frames: Frames, boxes: Boxes, windows: Floats, net: Generator) -> Images:
        """As `Models`; a mouth is the crop itself, or darkened."""
        frames = np.asarray(frames)
        self.generators.add(net)
        self.window_count += len(windows)
        self.bytes_sent += frames.nbytes
        async with self._call("lipsync"):
            if len(windows) > WAV2LIP_BATCH:
                raise InvalidInput(f"mel: at most {WAV2LIP_BATCH} windows")
            mouths = await asyncio.to_thread(crop, frames, boxes, len(windows))
            return darkened(mouths, windows) if self._darken else mouths

    async def segment(self, image: Images) -> Labels:
        """As `Models`; red pixels are a person, by the rule of the stand-in checkpoint."""
        async with self._call("segment"):
            red, blue = image[:, :, 0].astype(np.int32), image[:, :, 2].astype(np.int32)
            return np.where(red - blue > 40, PERSON, 0).astype(np.int32)

    async def close(self) -> None:
        """As `Models`."""
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


def darkened(mouths: Images, windows: Floats) -> Images:
    """Crops UINT8 [n,96,96,3] whose lower half is as dark as their window FP32 [n,80,16] is loud."""
    loudness = np.clip(windows.mean(axis=(1, 2)) / 8 + 0.5, 0, 1)
    result = mouths.copy()
    lower = result[:, result.shape[1] // 2 :]
    lower[:] = (lower * (1 - loudness)[:, None, None, None]).astype(np.uint8)
    return result
