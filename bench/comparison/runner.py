"""Run each workload in rounds; in each round the original, the service, the networks and the encoder run in turn."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from demo import client
from demo.models import export_models
from demo.stack import Ports, running
from export.variants import Precision, Profile

from ..cli import FAILURES
from ..weights import timing_weights
from . import generated_media
from .baseline import DETECTED_FRAMES, BareRuntime, Encoder, Networks
from .baseline import GENERATED_FRAMES as BARE_GENERATED_FRAMES
from .memory_monitor import MemoryMonitor
from .original import MEMORY, Sample, detection_batch
from .original_process import OriginalProcess
from .results import (
    CACHED_AVATAR,
    COLD,
    CONCURRENT,
    ENCODER,
    ENCODER_ALL_CORES,
    NEW_AVATAR,
    ORIGINAL,
    SEQUENTIAL,
    Timing,
    WorkloadResult,
    bare_networks,
    three_digits,
)
from .workloads import Kind, Workload

# What the original algorithm processes of a video in each round; its times are scaled to the whole video.
MEGAPIXELS, GENERATED_FRAMES = 5.0, 96
FREE_MEMORY_SHARE = 0.8  # of the free memory, for the original's detector
FORMATS = {Precision.FP32: "onnx", Precision.INT8: "openvino", Precision.FP16: "torchscript"}


@dataclass(frozen=True)
class Service:
    """The service that is measured: the URL of its gateway, and its process ids by name."""

    url: str
    processes: Mapping[str, int]


@dataclass(frozen=True)
class _Round:
    """What the rounds of one workload need.

    Attributes:
        service: the service.
        files: the workload's face and speech.
        copies: makes copies of the face that the service has not seen before.
        original: the original algorithm, or None if it is not measured.
        sample: the part of the clip that the original processes.
        networks: the bare networks.
        encoder: ffmpeg with the frames of the service's result.
        folder: for temporary files.
        result: takes the measurements.
    """

    service: Service
    files: generated_media.Files
    copies: generated_media.UniqueCopies
    original: OriginalProcess | None
    sample: Sample
    networks: Networks
    encoder: Encoder
    folder: Path
    result: WorkloadResult


class Runner:
    """One run of `compare`.

    Args:
        args: of the command line; used are `work`, `rounds`, `sample`, `no_original`, `profile` and `format`.
        fields: further text fields of the form.
    """

    def __init__(self, args: argparse.Namespace, fields: Mapping[str, str]) -> None:
        self._args, self._fields = args, fields
        self._device = "cpu" if args.profile is Profile.CPU else "cuda"

    def measure(self, chosen: Sequence[Workload]) -> Iterator[WorkloadResult]:
        """Yield the result of each workload; a failure of one is recorded in it, and the others are still measured.

        Raises:
            StackError: an export failed.
        """
        torch.set_flush_denormal(True)  # as in the server's sessions, so that no side is slowed by denormals
        weights = timing_weights(self._args.work / "weights")
        start, number = time.monotonic(), 0
        with contextlib.ExitStack() as processes:
            original = None
            if not self._args.no_original and any(workload.forms == 1 for workload in chosen):
                original = processes.enter_context(OriginalProcess(weights, self._device))
            for precision in dict.fromkeys(workload.precision for workload in chosen):
                repository = self._repository(precision)
                export_models(weights, repository, self._export_args(precision))
                networks = BareRuntime(repository, self._device)
                for workload in (each for each in chosen if each.precision is precision):
                    number += 1
                    _log(f"[{number} of {len(chosen)}, after {time.monotonic() - start:.0f} s] {workload.name}")
                    result = WorkloadResult(workload, networks.variant, networks.served)
                    try:
                        self._serve_and_measure(result, networks, original, repository)
                    except FAILURES as error:
                        result.failure = str(error)
                    yield result

    def _serve_and_measure(
        self, result: WorkloadResult, networks: Networks, original: OriginalProcess | None, repository: Path
    ) -> None:
        """Measure with a new stack for the workload, so that its first request runs cold."""
        logs = self._args.work / "logs" / result.workload.name
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            settings = {"AVATAR_CACHE_DIR": str(Path(name) / "cache")}  # empty, unlike this machine's own
            with running(repository, logs, Ports.free(), settings=settings) as stack:
                pids = {"Triton": stack.processes["embedded"].pid, "gateway": stack.processes["gateway"].pid}
                self.measure_one(result, networks, original, Service(stack.url, pids))

    def measure_one(
        self, result: WorkloadResult, networks: Networks, original: OriginalProcess | None, service: Service
    ) -> None:
        """Measure one workload against a running service, all its rounds.

        Raises:
            FormError, OSError, ValueError: a part failed; what was measured before that is in `result`.
        """
        workload = result.workload
        files = generated_media.files(workload, self._args.work / "media")
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            copies = generated_media.UniqueCopies(folder)
            start = time.perf_counter()
            video = client.post(service.url, copies.of(files.face), files.speech, extra_fields=self._fields)
            _add(result, Timing(COLD, 0, time.perf_counter() - start, video.stages))
            result.frames = video.frames
            (folder / "result.mp4").write_bytes(video.mp4)
            encoder = Encoder(folder / "result.mp4", files.speech)
            result.batch, sample = self._sample(workload)
            each = _Round(service, files, copies, original, sample, networks, encoder, folder, result)
            networks.warm_up(encoder.first)
            for number in range(1, self._args.rounds + 1):
                _log(f"  round {number} of {self._args.rounds}")
                if workload.forms > 1:
                    self._measure_concurrency(each, number)
                else:
                    self._measure_speed(each, number)
        if original is None or workload.forms > 1:
            result.batch = 0

    def _measure_speed(self, each: _Round, number: int) -> None:
        result, frames = each.result, each.result.frames
        if each.original:
            with MemoryMonitor("the original", {"original": each.original.pid}) as memory:
                stages = each.original.clip(each.files, result.batch, each.sample)
            _keep_peaks(result, memory)
            result.scaled |= {f"the original's {name}": part for name, part in stages.scaled.items()}
            _add(result, Timing(ORIGINAL, number, sum(stages.seconds.values()), stages.seconds))
        face = each.copies.of(each.files.face)
        for subject in (NEW_AVATAR, CACHED_AVATAR):
            start = time.perf_counter()
            with MemoryMonitor("the service", each.service.processes) as memory:
                video = client.post(each.service.url, face, each.files.speech, extra_fields=self._fields)
            _add(result, Timing(subject, number, time.perf_counter() - start, video.stages))
            _keep_peaks(result, memory)
        detected = 1 if result.workload.kind is Kind.STILL else frames
        for runtime, parts in each.networks.measure(each.encoder.first, detected, frames).items():
            _add(result, Timing(bare_networks(runtime), number, sum(parts.values()), parts))
            result.scaled |= _scaled_networks(detected, frames)
        _add(result, Timing(ENCODER, number, each.encoder.seconds(each.folder / "encoded.mp4")))
        part, whole = each.encoder.sampled
        result.scaled |= {"the encoder": (part, whole)} if part < whole else {}

    def _measure_concurrency(self, each: _Round, number: int) -> None:
        result, forms = each.result, each.result.workload.forms

        def post(face: Path) -> float:
            """Post a form, and return how long its response took."""
            start = time.perf_counter()
            client.post(each.service.url, face, each.files.speech, extra_fields=self._fields)
            return time.perf_counter() - start

        for subject, callers in ((SEQUENTIAL, 1), (CONCURRENT, forms)):
            faces = [each.copies.of(each.files.face) for _ in range(forms)]
            start = time.perf_counter()
            with MemoryMonitor("the service", each.service.processes) as memory, ThreadPoolExecutor(callers) as pool:
                waits = tuple(pool.map(post, faces))
            _add(result, Timing(subject, number, time.perf_counter() - start, {}, waits))
            _keep_peaks(result, memory)
        seconds = each.encoder.seconds(each.folder / "encoded.mp4", every_core=True)
        _add(result, Timing(ENCODER_ALL_CORES, number, seconds))

    def _sample(self, workload: Workload) -> tuple[int, Sample]:
        """Return the batch size of the original's detector, and the part of the clip that the original processes."""
        free = psutil.virtual_memory().available * FREE_MEMORY_SHARE
        memory = min(MEMORY, free) if self._device == "cpu" else MEMORY
        batch = detection_batch(workload.width, workload.height, memory)
        if workload.kind is Kind.STILL or not self._args.sample:
            return batch, Sample()
        frames = max(1, int(self._args.sample / workload.megapixels))
        whole_batches = frames if frames < batch else frames - frames % batch
        return min(batch, whole_batches), Sample(whole_batches, GENERATED_FRAMES)

    def _repository(self, precision: Precision) -> Path:
        profile: Profile = self._args.profile
        name = f"{precision}" if profile is Profile.CPU else f"{profile}-{precision}"
        return Path(self._args.work / f"repository-{name}")

    def _export_args(self, precision: Precision) -> list[str]:
        kind = self._args.format or FORMATS[precision]
        return ["--profile", self._args.profile, "--format", kind, "--precision", precision, "--no-timing"]


def _scaled_networks(detected: int, generated: int) -> dict[str, tuple[int, int]]:
    parts = {
        "the bare detector": (DETECTED_FRAMES, detected),
        "the bare generator": (BARE_GENERATED_FRAMES, generated),
    }
    return {name: (part, whole) for name, (part, whole) in parts.items() if part < whole}


def _add(result: WorkloadResult, timing: Timing) -> None:
    result.timings.append(timing)
    _log(f"    {timing.subject}: {three_digits(timing.seconds)} s")


def _keep_peaks(result: WorkloadResult, memory: MemoryMonitor) -> None:
    """Keep the larger of the peaks of all rounds."""
    for name, peak in memory.peaks.items():
        before = result.memory.get(name, peak)
        result.memory[name] = max(before, peak, key=lambda one: one.bytes)


def _log(line: str) -> None:
    print(line, flush=True)  # at once, also into a pipe
