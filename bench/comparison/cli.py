"""`python -m bench`: this service against the original algorithm and against the floor, interleaved on one machine.

Ratios count, seconds do not: other work on the machine slows both.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from demo import client
from demo.stack import Ports, StackError, add_variant, prepare_from, running
from embedded.errors import EmbeddedError
from export.errors import ExportError
from export.variants import Precision, Profile

from ..triton import throughput
from ..weights import timing_weights
from . import chart, generated_media, report, workloads
from .baseline import DETECTIONS, MOUTHS, Encoder, Floor
from .memory_monitor import Watch
from .original import MEMORY, Sample, detection_batch
from .original_process import Apart
from .results import (
    AGAIN,
    APART,
    COLD,
    ENCODER,
    FIRST,
    ORIGINAL,
    TOGETHER,
    WHOLE_ENCODER,
    Measured,
    Timing,
    bare,
    figure,
)
from .workloads import WORKS, Kind, Work

ROOT = Path(__file__).resolve().parents[2]
DONE, FAILED, INTERRUPTED = 0, 1, 130
STATUS = "Exit status: 0 done (a missed goal is printed, and no error), 1 something failed, 2 wrong usage, 130 ended "
STATUS += "by Ctrl-C; what was measured until then is written."
MEGAPIXELS, MOUTHS_MADE = 5.0, 96  # of a video, on which the original works in each round; the rest is scaled
FREE_PART = 0.8  # of the memory that is free, for the original's detector
FORMATS = {Precision.FP32: "onnx", Precision.INT8: "openvino", Precision.FP16: "torchscript"}
# What a part of a work fails with; the other works are measured all the same.
FAILURES = (StackError, client.FormError, EmbeddedError, ExportError, OSError, ValueError)


def main(words: Sequence[str]) -> int:
    """`python -m bench compare`, or without a command. Exit status: see `STATUS`."""
    parser = _parser()
    options = parser.parse_args(words)
    precisions = _precisions(options)
    try:
        names = [name for name in (options.works or "").split(",") if name]
        chosen = workloads.named(names, precisions) if names else workloads.usual(precisions, quick=options.quick)
        more = dict(_field(text) for text in options.field)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        return _list(chosen)
    # SIGTERM is a clean stop, as Ctrl-C; both are set, since a shell's `&` starts us with SIGINT ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    found: list[Measured] = []
    status = DONE
    try:
        for each in Bench(options, more).measure(chosen):
            found.append(each)
            print(report.text(each), flush=True)
    except FAILURES as error:
        print(f"bench: {error}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        status = INTERRUPTED
    if found:
        write(found, options.out, throughput.device_name() if options.profile is not Profile.CPU else "")
    return status or (FAILED if any(each.failure for each in found) else DONE)


def write(found: Sequence[Measured], out: Path, gpu_name: str = "") -> None:
    """All measurements into `out` (JSON), and beside it a chart (.png) and tables (.md)."""
    machine = report.Machine.this(gpu_name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(report.as_json(machine, found), "utf-8")
    out.with_suffix(".md").write_text(report.markdown(machine, found), "utf-8")
    chart.draw(found, machine.text, out.with_suffix(".png"))
    print(f"\nwrote {out}, {out.with_suffix('.md').name} and {out.with_suffix('.png').name}", flush=True)


@dataclass(frozen=True)
class Round:
    """What a round of one work needs.

    Attributes:
        url: of the gateway.
        files: the work's face and speech.
        fresh: copies of the face that were not seen before.
        original: to time it, or None.
        sample: what the original does of the clip.
        floor: bare nets.
        encoder: ffmpeg with the service's result.
        service: process ids of the service, by name.
        folder: to write into.
        into: takes what is measured.
    """

    url: str
    files: generated_media.Files
    fresh: generated_media.Fresh
    original: Apart | None
    sample: Sample
    floor: Floor
    encoder: Encoder
    service: dict[str, int]
    folder: Path
    into: Measured


class Bench:
    """One run.

    Args:
        options: of the command line.
        more: fields of the form beside the files.
    """

    def __init__(self, options: argparse.Namespace, more: dict[str, str]) -> None:
        self._options, self._more = options, more
        self._device = "cpu" if options.profile is Profile.CPU else "cuda"

    def measure(self, chosen: Sequence[Work]) -> Iterator[Measured]:
        """Each work, all its rounds; one precision after another, each from a repository of its own.

        Raises:
            StackError: an export failed, or a server did not start.
        """
        torch.set_flush_denormal(True)  # as in the served sessions, so that neither side pays for denormals
        weights = timing_weights(self._options.work / "weights")
        begin, number = time.monotonic(), 0
        with contextlib.ExitStack() as ends:
            apart = None
            if not self._options.no_original and any(work.forms == 1 for work in chosen):
                apart = ends.enter_context(Apart(weights, self._device))
            for precision in dict.fromkeys(work.precision for work in chosen):
                repository = self._repository(precision)
                prepare_from(weights, repository, self._how(precision))
                floor = Floor(repository, self._device)
                for work in (work for work in chosen if work.precision is precision):
                    number += 1
                    _say(f"[{number} of {len(chosen)}, after {time.monotonic() - begin:.0f} s] {work.name}")
                    measured = Measured(work, floor.variant, floor.served)
                    try:
                        self.work(measured, floor, apart, repository)
                    except FAILURES as error:
                        measured.failure = str(error)
                    yield measured

    def work(self, into: Measured, floor: Floor, apart: Apart | None, repository: Path) -> None:
        """All rounds of one work, over a stack of its own: its first request finds nothing warm and no cache filled.

        Raises:
            StackError, FormError, OSError, ValueError: a part of it failed; what was measured until then is in `into`.
        """
        work = into.work
        files = generated_media.files(work, self._options.work / "media")
        logs = self._options.work / "logs" / work.name
        with contextlib.ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            settings = {"AVATAR_CACHE_DIR": str(folder / "cache")}  # empty, whatever this machine has kept
            stack = ends.enter_context(running(repository, logs, Ports.free(), settings=settings))
            service = {"Triton": stack.processes["embedded"].pid, "gateway": stack.processes["gateway"].pid}
            (folder / "fresh").mkdir()
            fresh = generated_media.Fresh(folder / "fresh")
            cold = fresh.of(files.face)
            begin = time.perf_counter()
            answer = client.post(stack.url, cold, files.speech, more=self._more)
            _add(into, Timing(COLD, 0, time.perf_counter() - begin, answer.stages))
            into.frames = answer.frames
            result = folder / "answer.mp4"
            result.write_bytes(answer.mp4)
            encoder = Encoder(result, files.speech)
            into.batch, sample = self._sample(work)
            turn = Round(stack.url, files, fresh, apart, sample, floor, encoder, service, folder, into)
            floor.warm(encoder.first)
            for number in range(1, self._options.rounds + 1):
                _say(f"  round {number} of {self._options.rounds}")
                if work.forms > 1:
                    self._together(turn, number)
                else:
                    self._alone(turn, number)
        if apart is None or work.forms > 1:
            into.batch = 0

    def _alone(self, turn: Round, number: int) -> None:
        into, frames = turn.into, turn.into.frames
        if turn.original:
            with Watch("the original", {"original": turn.original.pid}) as watch:
                stages = turn.original.clip(turn.files, into.batch, turn.sample)
            _keep(into, watch)
            into.scaled |= {f"the original's {name}": part for name, part in stages.scaled.items()}
            _add(into, Timing(ORIGINAL, number, sum(stages.seconds.values()), stages.seconds))
        face = turn.fresh.of(turn.files.face)
        for who in (FIRST, AGAIN):
            begin = time.perf_counter()
            with Watch("the service", turn.service) as watch:
                answer = client.post(turn.url, face, turn.files.speech, more=self._more)
            _add(into, Timing(who, number, time.perf_counter() - begin, answer.stages))
            _keep(into, watch)
        pictures = 1 if into.work.kind is Kind.STILL else frames
        for runtime, parts in turn.floor.nets(turn.encoder.first, pictures, frames).items():
            _add(into, Timing(bare(runtime), number, sum(parts.values()), parts))
        into.scaled |= _of_floor(pictures, frames)
        _add(into, Timing(ENCODER, number, turn.encoder.seconds(turn.folder / "encoded.mp4")))
        part, whole = turn.encoder.sampled
        into.scaled |= {"the encoder": (part, whole)} if part < whole else {}

    def _together(self, turn: Round, number: int) -> None:
        into, forms = turn.into, turn.into.work.forms

        def post(face: Path) -> float:
            """How long it waited for its answer."""
            begin = time.perf_counter()
            client.post(turn.url, face, turn.files.speech, more=self._more)
            return time.perf_counter() - begin

        for who, at_once in ((APART, 1), (TOGETHER, forms)):
            faces = [turn.fresh.of(turn.files.face) for _ in range(forms)]
            begin = time.perf_counter()
            with Watch("the service", turn.service) as watch, ThreadPoolExecutor(at_once) as pool:
                waits = tuple(pool.map(post, faces))
            _add(into, Timing(who, number, time.perf_counter() - begin, {}, waits))
            _keep(into, watch)
        _add(into, Timing(WHOLE_ENCODER, number, turn.encoder.seconds(turn.folder / "encoded.mp4", every_core=True)))

    def _sample(self, work: Work) -> tuple[int, Sample]:
        """Pictures in a batch of the original's detector, and what of the clip the original does."""
        free = psutil.virtual_memory().available * FREE_PART
        memory = min(MEMORY, free) if self._device == "cpu" else MEMORY
        batch = detection_batch(work.width, work.height, memory)
        if work.kind is Kind.STILL or not self._options.sample:
            return batch, Sample()
        pictures = max(1, int(self._options.sample / work.megapixels))
        whole = pictures if pictures < batch else pictures - pictures % batch
        return min(batch, whole), Sample(whole, MOUTHS_MADE)

    def _repository(self, precision: Precision) -> Path:
        profile: Profile = self._options.profile
        name = f"{precision}" if profile is Profile.CPU else f"{profile}-{precision}"
        return Path(self._options.work / f"repository-{name}")

    def _how(self, precision: Precision) -> list[str]:
        kind = self._options.format or ("onnx" if self._options.profile is Profile.TENSORRT else FORMATS[precision])
        return ["--profile", self._options.profile, "--format", kind, "--precision", precision, "--no-timing"]


def _of_floor(pictures: int, frames: int) -> dict[str, tuple[int, int]]:
    parts = {"the bare detector": (DETECTIONS, pictures), "the bare generator": (MOUTHS, frames)}
    return {name: (part, whole) for name, (part, whole) in parts.items() if part < whole}


def _add(into: Measured, timing: Timing) -> None:
    into.timings.append(timing)
    _say(f"    {timing.who}: {figure(timing.seconds)} s")


def _keep(into: Measured, watch: Watch) -> None:
    """The larger of the peaks of all rounds."""
    for name, peak in watch.peaks.items():
        before = into.memory.get(name, peak)
        into.memory[name] = max(before, peak, key=lambda one: one.bytes)


def _precisions(options: argparse.Namespace) -> tuple[Precision, ...]:
    if options.precision:
        return (Precision(options.precision),)
    return (Precision.FP32, Precision.INT8) if options.profile is Profile.CPU else (Precision.FP16,)


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--field {text}: NAME=VALUE expected")
    return name, value


def _list(chosen: Sequence[Work]) -> int:
    names = [work.name for work in chosen]
    for work in WORKS.values():
        goals = "; ".join(f"{verdict.goal} {verdict.limit:g}" for verdict in Measured(work).verdicts())
        print(f"{'*' if work.name in names else ' '} {work.name:<22}{work.about:<52}{goals}".rstrip())
    print("(*: what these options measure)")
    return DONE


def _say(line: str) -> None:
    print(line, flush=True)  # somebody watches a pipe


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Times this service through HTTP (a new avatar, and the same again), the original algorithm "
        "(PyTorch eager, fp32, whole clips) and the floor (bare nets, the encoder alone), in turn on the same files, "
        "and prints medians, spread, ratios, goals, stages and peak memory. The first run exports the models. Other "
        "commands: see the README.",
        epilog=STATUS,
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--works",
        metavar="NAME,…",
        help="works by name, as --list shows them; without -fp32, -int8 or -fp16 a name stands for all (default: those "
        "with a goal, and a still and a video of each size)",
    )
    what.add_argument("--list", action="store_true", help="list the works and their goals, and end")
    what.add_argument("--quick", action="store_true", help="few works, for a first look")
    what.add_argument("--rounds", type=_at_least_one, default=3, metavar="N", help="rounds of each work (default: 3)")
    what.add_argument(
        "--sample",
        type=float,
        default=MEGAPIXELS,
        metavar="MEGAPIXELS",
        help="pictures of a video in which the original looks for faces in a round, in megapixels; it then makes "
        f"{MOUTHS_MADE} mouths, and both are scaled to the whole, as the tables say (default: {MEGAPIXELS:g}; 0: all)",
    )
    what.add_argument("--no-original", action="store_true", help="leave the original out: the service and the floor")
    what.add_argument(
        "--field", action="append", default=[], metavar="NAME=VALUE", help="a further field of the form; repeatable"
    )
    exported = parser.add_argument_group("what the models are exported as")
    exported.add_argument(
        "--profile",
        type=Profile,
        choices=list(Profile),
        default=Profile.CPU,
        help="the machine, as `python -m export models` knows it (default: cpu). With gpu or tensorrt the works are "
        "those in fp16, and the original runs on the GPU",
    )
    add_variant(exported)
    where = parser.add_argument_group("where things are")
    where.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "bench",
        metavar="DIR",
        help="models, media and logs (build/bench)",
    )
    where.add_argument(
        "--out",
        type=Path,
        default=ROOT / "out" / "bench.json",
        metavar="FILE",
        help="every measurement, as JSON; a chart (.png) and tables (.md) go beside it (default: out/bench.json)",
    )
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
