"""`python -m bench`: this service against the original algorithm, interleaved in one run on one machine.

Ratios count, seconds do not: other work on the machine slows both.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from avatar.ffmpeg import executable
from demo import form
from demo.stack import Ports, StackError, add_variant, how, prepare_from, running
from embedded.errors import EmbeddedError
from export.checkpoints import S3FD_FILE, WAV2LIP_FILE, load_wav2lip
from export.networks.wav2lip import Wav2Lip

from . import gpu, original
from .floor import Floor
from .weights import timing_weights

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.40  # this service's time as a part of the original's, warm


@dataclass(frozen=True)
class Sample:
    """One measurement: who, whole seconds, seconds by stage, frames made."""

    who: str
    seconds: float
    stages: dict[str, float]
    frames: int = 0


def main() -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage. Missing a goal is printed, not an error."""
    options = _parser().parse_args()
    try:
        if options.command == "gpu":
            figure = gpu.measure(options.repository, options.requests, options.batch, options.seconds)
            gpu.report(figure, options.out.with_name("bench-gpu.json"))
            return 0
        weights = timing_weights(options.work / "weights")
        prepare_from(weights, options.work / "repository", how(options))
        samples = measure(options, weights)
    except (StackError, form.FormError, EmbeddedError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    report(samples, options.out)
    return 0


def measure(options: argparse.Namespace, weights: Path) -> list[Sample]:
    """Cold request first, then service, original and bare nets in turn, `--rounds` times."""
    torch.set_flush_denormal(True)  # as in the served sessions, so that neither side pays for denormals
    floor = Floor(options.work / "repository")
    generator = load_wav2lip(weights / WAV2LIP_FILE)
    with running(options.work / "repository", options.work / "logs", Ports.free()) as stack:
        samples = [_service(stack.url, options, "service, cold")]
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", flush=True)
            answered = _service(stack.url, options, "service, warm")
            samples += [
                _original(options, weights / S3FD_FILE, generator),
                answered,
                _bare(options, floor, answered.frames),
            ]
    return samples


def report(samples: list[Sample], out: Path) -> None:
    """Print medians, spread and ratios; write everything as JSON."""
    by: dict[str, list[float]] = {}
    for sample in samples:
        by.setdefault(sample.who, []).append(sample.seconds)
    base = statistics.median(by["original"])
    print(f"\n{'':<16}{'median':>10}{'least':>10}{'most':>10}{'original ÷':>12}")
    for who, seconds in by.items():
        middle = statistics.median(seconds)
        print(f"{who:<16}{middle:>8.2f} s{min(seconds):>8.2f} s{max(seconds):>8.2f} s{base / middle:>12.2f}")
    for who in ("original", "service, warm", "bare nets"):
        last = [sample for sample in samples if sample.who == who][-1]
        print(f"stages, {who}: " + ", ".join(f"{name} {value:.2f} s" for name, value in last.stages.items()))
    part = statistics.median(by["service, warm"]) / base
    print(f"service ÷ original: {part:.0%} (goal: at most {GOAL:.0%}; {'met' if part <= GOAL else 'MISSED'})")
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.processor() or platform.machine(), "torch threads": torch.get_num_threads()}
    out.write_text(json.dumps({**machine, "samples": [asdict(sample) for sample in samples]}, indent=2) + "\n")


def _original(options: argparse.Namespace, detector: Path, generator: Wav2Lip) -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mp4"
        begin = time.perf_counter()
        stages = original.still(options.face, options.speech, out, detector, generator, executable())
        return Sample("original", time.perf_counter() - begin, stages.seconds)


def _bare(options: argparse.Namespace, floor: Floor, frames: int) -> Sample:
    stages = floor.still(options.face, frames)
    return Sample("bare nets", sum(stages.values()), stages, frames)


def _service(url: str, options: argparse.Namespace, who: str) -> Sample:
    begin = time.perf_counter()
    answer = form.post(url, options.face, options.speech)
    return Sample(who, time.perf_counter() - begin, answer.stages, answer.frames)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        choices=("original", "gpu"),
        default="original",
        help="against the original algorithm, or frames a second of wav2lip through gRPC (made for a GPU)",
    )
    parser.add_argument("--face", type=Path, default=ROOT / "samples" / "face.png", help="a still")
    parser.add_argument("--speech", type=Path, default=ROOT / "samples" / "speech.wav", help="a recording")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default 3)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="models and logs of the bench")
    add_variant(parser.add_argument_group("what the models are exported as"))
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench.json", help="every measurement, as JSON")
    gpu.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
