"""`python -m bench encode`: frames converted by ffmpeg, as before, against frames converted by the service."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from avatar.media.allocator import keep_freed_memory
from avatar.media.threads import encoder_threads, limit_opencv

from ..cli import DONE, add_json_output, positive_int, positive_ints
from ..comparison.workloads import SIZES, Kind
from ..errors import UsageError
from ..machine import Machine
from .paths import Cost, Scene, encode

MAX_RATIO = 0.6  # processor time, service ÷ ffmpeg, at GOAL_HEIGHT
GOAL_HEIGHT = 720


@dataclass(frozen=True)
class Row:
    """One workload: the costs of each round, with the conversion by ffmpeg and by the service."""

    kind: Kind
    height: int
    frames: int
    by_ffmpeg: list[Cost]
    by_service: list[Cost]

    @property
    def cpu_ratio(self) -> float:
        """Processor time of the service's way ÷ ffmpeg's way, in the best round of each: other programs only add."""
        return min(cost.cpu for cost in self.by_service) / min(cost.cpu for cost in self.by_ffmpeg)

    @property
    def wall_ratio(self) -> float:
        """Time of the service's way ÷ ffmpeg's way, in the best round of each."""
        return min(cost.wall for cost in self.by_service) / min(cost.wall for cost in self.by_ffmpeg)

    @property
    def text(self) -> str:
        """The row as a line of the table."""
        cells: list[str] = [f"{self.kind} {SIZES[self.height]}×{self.height}"]
        for costs in (self.by_ffmpeg, self.by_service):
            best = min(costs, key=lambda cost: cost.cpu)
            cells += [f"{best.own:.2f}", f"{best.ffmpeg:.2f}", f"{min(cost.wall for cost in costs):.2f}"]
        return f"| {' | '.join(cells)} | {self.cpu_ratio:.2f} | {self.wall_ratio:.2f} |"


HEAD = """| frames | own, before | ffmpeg, before | clock, before | own | ffmpeg | clock | CPU ratio | clock ratio |
|---|--:|--:|--:|--:|--:|--:|--:|--:|"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `encode`."""
    parser.description = (
        "Paste mouths into drawn frames and encode them to mp4, without networks: once with the conversion by ffmpeg, "
        "as before, and once with that of the service, in turn. Print the processor time of both processes."
    )
    parser.add_argument("--frames", type=positive_int, default=250, metavar="N", help="frames (default: 250)")
    parser.add_argument("--heights", type=positive_ints, default=(480, 720), metavar="N,…", help="default: 480,720")
    parser.add_argument("--rounds", type=positive_int, default=3, metavar="N", help="rounds (default: 3)")
    add_json_output(parser, "encode.json")


def run(args: argparse.Namespace) -> int:
    """Measure; print and write the result."""
    if wrong := set(args.heights) - set(SIZES):
        raise UsageError(f"--heights: {min(wrong)}: possible are {', '.join(map(str, SIZES))}")
    limit_opencv()
    keep_freed_memory()
    print(
        f"{Machine.current().text}; x264 with {encoder_threads()} threads; seconds for {args.frames} frames\n\n{HEAD}"
    )
    rows = list(_measure(args.heights, args.frames, args.rounds))
    for row in rows:
        if row.height == GOAL_HEIGHT:
            verdict = "met" if row.cpu_ratio <= MAX_RATIO else "missed"
            print(f"\n{row.kind}, {row.height} rows: CPU ratio {row.cpu_ratio:.2f}; goal {MAX_RATIO}: {verdict}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": asdict(Machine.current()),
        "rows": [asdict(row) | {"cpu_ratio": row.cpu_ratio} for row in rows],
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"written: {os.path.relpath(args.out)}")
    return DONE


def _measure(heights: tuple[int, ...], frames: int, rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "result.mp4"
        for height in heights:
            for kind in Kind:
                scene = Scene.draw(kind, SIZES[height], height, frames)
                row = Row(kind, height, frames, [], [])
                for _ in range(rounds):
                    row.by_ffmpeg.append(encode(scene, out, by_ffmpeg=True))
                    row.by_service.append(encode(scene, out, by_ffmpeg=False))
                print(row.text, flush=True)
                yield row
