"""The lower bound of any service with these networks: the bare networks in their runtimes, and the encoder alone."""

from __future__ import annotations

import os
import time
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from avatar.limits import LIMITS
from avatar.media import ffmpeg_args
from avatar.options import Quality
from export.build import versions
from export.validation import runtimes
from export.validation.runtimes import Run
from export.variants import Format
from lipsync.arrays import Array, Batch, Image
from lipsync.tensors import FACE_SIZE, MEL_BANDS, S3FD, WAV2LIP, WAV2LIP_BATCH, WINDOW_COLUMNS, Model
from lipsync.yuv import Planes, to_yuv420

from .. import ffmpeg_pipe
from .workloads import FPS

DETECTED_FRAMES, GENERATED_FRAMES = (
    2,
    2 * WAV2LIP_BATCH,
)  # number of frames that are really processed; times are scaled, since each frame costs the same
MAX_FRAME_BYTES = 1 << 30  # raw frames to encode at most; the time is scaled to the rest
RUNTIMES = {Format.ONNX: "onnxruntime", Format.TORCHSCRIPT: "PyTorch", Format.OPENVINO: "OpenVINO"}


class Networks(Protocol):
    """The bare networks, as a run needs them: see `BareRuntime`."""

    served: str
    variant: str

    def warm_up(self, frame: Image) -> None:
        """Run each network once."""

    def measure(self, frame: Image, detected: int, generated: int) -> dict[str, dict[str, float]]:
        """Return the seconds by runtime and stage."""


class NoNetworks:
    """In place of the bare networks, where they are not measured."""

    served = variant = ""

    def warm_up(self, frame: Image) -> None:
        """Do nothing."""

    def measure(self, frame: Image, detected: int, generated: int) -> dict[str, dict[str, float]]:
        """Return nothing."""
        return {}


class BareRuntime:
    """The detector and the generator of an exported repository, in every runtime that can load their files.

    Args:
        repository: with at least one export of each network; the newest is used.
        device: PyTorch's device; the other runtimes use the CPU.

    Attributes:
        served: the runtime that Triton uses.
        variant: format and precision, for example `openvino int8`.
    """

    def __init__(self, repository: Path, device: str = "cpu") -> None:
        (detector, kind), (generator, _) = (_newest(repository, net) for net in (S3FD, WAV2LIP))
        self.served = RUNTIMES[kind]
        self.variant = f"{kind} {versions.list_versions(repository / WAV2LIP.name)[-1].record['precision']}"
        on_device = kind is Format.TORCHSCRIPT and device != "cpu"
        load = (lambda net, path: _pytorch(path, device)) if on_device else runtimes.load
        self._nets = {self.served: (load(S3FD, detector), load(WAV2LIP, generator))}
        if kind is Format.ONNX and device == "cpu":
            others = runtimes.openvino_run(S3FD, detector), runtimes.openvino_run(WAV2LIP, generator)
            self._nets[RUNTIMES[Format.OPENVINO]] = others
        seeded = np.random.default_rng(0)
        self._faces = seeded.integers(0, 256, (WAV2LIP_BATCH, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        self._mel = seeded.uniform(-4, 4, (WAV2LIP_BATCH, MEL_BANDS, WINDOW_COLUMNS)).astype(np.float32)

    def warm_up(self, frame: Image) -> None:
        """Run each network once with the shapes of the measurement, so that no measured time includes the set-up."""
        for detect, generate in self._nets.values():
            detect((frame[None],))
            generate((self._faces, self._mel))

    def measure(self, frame: Image, detected: int, generated: int) -> dict[str, dict[str, float]]:
        """Return by runtime the seconds of `detection` and of `generation` for these numbers of frames, scaled."""
        return {name: self._run(*nets, frame, detected, generated) for name, nets in self._nets.items()}

    def _run(self, detect: Run, generate: Run, frame: Image, detected: int, generated: int) -> dict[str, float]:
        count = min(detected, DETECTED_FRAMES)
        start = time.perf_counter()
        for _ in range(count):
            detect((frame[None],))
        middle = time.perf_counter()
        for _ in range(GENERATED_FRAMES // WAV2LIP_BATCH):
            generate((self._faces, self._mel))
        end = time.perf_counter()
        return {
            "detection": (middle - start) * detected / count,
            "generation": (end - middle) * generated / GENERATED_FRAMES,
        }


class Encoder:
    """ffmpeg with the arguments of the service, fed with frames from memory.

    Args:
        video: the service's result; its frames are encoded.
        speech: the audio.
    """

    def __init__(self, video: Path, speech: Path) -> None:
        capture = cv2.VideoCapture(str(video))
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._frames: list[Planes] = []
        first: Image | None = None
        try:
            while (read := capture.read())[0] and len(self._frames) * read[1].nbytes < MAX_FRAME_BYTES:
                frame = read[1].astype(np.uint8, copy=False)
                first = frame if first is None else first
                self._frames.append(to_yuv420(frame))
        finally:
            capture.release()
        if first is None:
            raise ValueError(f"{video}: not a video")
        self._first = first
        self._speech = speech

    @property
    def first(self) -> Image:
        """The first frame."""
        return self._first

    @property
    def sampled(self) -> tuple[int, int]:
        """Number of encoded frames, and of all frames."""
        return len(self._frames), max(self._count, len(self._frames))

    def seconds(self, out: Path, *, every_core: bool = False) -> float:
        """Encode into `out`; return the seconds, scaled to all frames. With `every_core` x264 uses all cores."""
        height, width = self.first.shape[:2]
        video = ffmpeg_args.VideoFormat(width, height, Fraction(FPS))
        audio = ffmpeg_args.AudioInput(self._speech, True, Fraction(len(self._frames), FPS), LIMITS.max_pixels)
        arguments = ffmpeg_args.encode_args(video, audio, out, Quality.STANDARD)
        if every_core:
            arguments[arguments.index("-threads") + 1] = str(len(os.sched_getaffinity(0)))
        begin = time.perf_counter()
        ffmpeg_pipe.run(arguments, (frame.reshape(-1).data for frame in self._frames))
        part, whole = self.sampled
        return (time.perf_counter() - begin) * whole / part


def _newest(repository: Path, net: Model) -> tuple[Path, Format]:
    found = versions.list_versions(repository / net.name)
    if not found:
        raise ValueError(f"{repository}: no export of {net.name}")
    kind = Format(str(found[-1].record["format"]))
    return found[-1].folder / kind.file, kind


def _pytorch(path: Path, device: str) -> Run:
    """Load a TorchScript archive onto a GPU; inputs and outputs are arrays in main memory, as in the other runtimes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch deprecates TorchScript
        module = torch.jit.freeze(torch.jit.load(path, map_location=device).eval())  # type: ignore[no-untyped-call]

    def run(batch: Batch) -> list[Array]:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array).to(device) for array in batch))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run
