"""What no service over these nets can go below: the bare nets in their runtimes, and the encoder alone."""

from __future__ import annotations

import os
import subprocess
import time
import warnings
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from avatar.limits import LIMITS
from avatar.media import ffmpeg_args
from avatar.media.ffmpeg import executable
from avatar.options import Quality
from export.build import versions
from export.formats.onnx_model import Array
from export.validation import runtimes
from export.validation.runtimes import Run
from export.validation.samples import Batch
from export.variants import Format
from lipsync.tensors import FACE_SIZE, MEL_BANDS, S3FD, WAV2LIP, WAV2LIP_BATCH, WINDOW_COLUMNS, Model

from .workloads import FPS

Picture = NDArray[np.uint8]

DETECTIONS, MOUTHS = 2, 2 * WAV2LIP_BATCH  # run of a clip; the rest is scaled, since each picture costs the same
FILM_BYTES = 1 << 30  # of raw frames that the encoder is given; the rest is scaled
RUNTIMES = {Format.ONNX: "onnxruntime", Format.TORCHSCRIPT: "PyTorch", Format.OPENVINO: "OpenVINO"}


class Floor:
    """The detector and the generator of an exported repository, loaded by every runtime that can read their files.

    Args:
        repository: with one export of each net at least; the newest counts.
        device: of PyTorch; the other runtimes run on the CPU.

    Attributes:
        served: the runtime that Triton uses for them.
        variant: what they are exported as, as `openvino int8`.
    """

    def __init__(self, repository: Path, device: str = "cpu") -> None:
        (detector, kind), (generator, _) = (_newest(repository, net) for net in (S3FD, WAV2LIP))
        self.served = RUNTIMES[kind]
        self.variant = f"{kind} {versions.list_versions(repository / WAV2LIP.name)[-1].record['precision']}"
        on_device = kind is Format.TORCHSCRIPT and device != "cpu"
        load = (lambda net, path: _pytorch(path, device)) if on_device else runtimes.load
        self._nets = {self.served: (load(S3FD, detector), load(WAV2LIP, generator))}
        if kind is Format.ONNX and device == "cpu":
            others = runtimes.in_openvino(S3FD, detector), runtimes.in_openvino(WAV2LIP, generator)
            self._nets[RUNTIMES[Format.OPENVINO]] = others
        seeded = np.random.default_rng(0)
        self._faces = seeded.integers(0, 256, (WAV2LIP_BATCH, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        self._mel = seeded.uniform(-4, 4, (WAV2LIP_BATCH, MEL_BANDS, WINDOW_COLUMNS)).astype(np.float32)

    def warm(self, picture: Picture) -> None:
        """Let the runtimes see these shapes once, so that no later time holds what they do at first sight."""
        for detect, generate in self._nets.values():
            detect((picture[None],))
            generate((self._faces, self._mel))

    def nets(self, picture: Picture, pictures: int, mouths: int) -> dict[str, dict[str, float]]:
        """Seconds of `detection` in so many pictures and of `generation` of so many mouths, by runtime; scaled."""
        return {name: self._run(*nets, picture, pictures, mouths) for name, nets in self._nets.items()}

    def _run(self, detect: Run, generate: Run, picture: Picture, pictures: int, mouths: int) -> dict[str, float]:
        some = min(pictures, DETECTIONS)
        begin = time.perf_counter()
        for _ in range(some):
            detect((picture[None],))
        detected = time.perf_counter()
        for _ in range(MOUTHS // WAV2LIP_BATCH):
            generate((self._faces, self._mel))
        generated = time.perf_counter()
        return {
            "detection": (detected - begin) * pictures / some,
            "generation": (generated - detected) * mouths / MOUTHS,
        }


class Encoder:
    """ffmpeg with the service's own arguments, given frames that lie in memory.

    Args:
        video: whose frames: what the service answered.
        speech: the sound.
    """

    def __init__(self, video: Path, speech: Path) -> None:
        capture = cv2.VideoCapture(str(video))
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._frames: list[Picture] = []
        try:
            while (read := capture.read())[0] and len(self._frames) * read[1].nbytes < FILM_BYTES:
                self._frames.append(read[1].astype(np.uint8, copy=False))
        finally:
            capture.release()
        if not self._frames:
            raise ValueError(f"{video}: not a video")
        self._speech = speech

    @property
    def first(self) -> Picture:
        """The first frame."""
        return self._frames[0]

    @property
    def sampled(self) -> tuple[int, int]:
        """How many of how many frames are encoded."""
        return len(self._frames), max(self._count, len(self._frames))

    def seconds(self, out: Path, *, every_core: bool = False) -> float:
        """Encode into `out`; seconds, scaled to the whole. With `every_core` x264 has the machine to itself."""
        height, width = self.first.shape[:2]
        picture = ffmpeg_args.VideoFormat(width, height, Fraction(FPS))
        sound = ffmpeg_args.AudioInput(self._speech, True, Fraction(len(self._frames), FPS), LIMITS.max_pixels)
        arguments = ffmpeg_args.encode_args(picture, sound, out, Quality.STANDARD)
        if every_core:
            arguments[arguments.index("-threads") + 1] = str(len(os.sched_getaffinity(0)))
        begin = time.perf_counter()
        process = subprocess.Popen([executable(), *arguments], stdin=subprocess.PIPE, process_group=0)
        try:
            assert process.stdin  # noqa: S101 - for the types; it was asked for
            for frame in self._frames:
                process.stdin.write(frame.reshape(-1).data)
            process.stdin.close()
            if process.wait():
                raise OSError(f"ffmpeg ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()
        part, whole = self.sampled
        return (time.perf_counter() - begin) * whole / part


def _newest(repository: Path, net: Model) -> tuple[Path, Format]:
    found = versions.list_versions(repository / net.name)
    if not found:
        raise ValueError(f"{repository}: holds no export of {net.name}")
    kind = Format(found[-1].record["format"])
    return found[-1].folder / kind.file, kind


def _pytorch(path: Path, device: str) -> Run:
    """A TorchScript archive on a GPU, its inputs and outputs in the machine's memory as everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is on its way out; these files are not
        module = torch.jit.freeze(torch.jit.load(path, map_location=device).eval())  # type: ignore[no-untyped-call]

    def run(batch: Batch) -> list[Array]:
        with torch.inference_mode():
            outputs = module(*(torch.from_numpy(array).to(device) for array in batch))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    return run
