"""`python -m bench live`: live sessions in real time, and the latency of their frames."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from tabulate import tabulate

from lipsync.mel import SAMPLE_RATE
from lipsync.mel_stream import LATENCY
from lipsync.triton.cpu import usable_cores

from ..cli import DONE, FAILED, positive_ints
from ..machine import processor_name
from ..paths import OUT, SAMPLES
from .live_client import LiveError, LivePlan, SessionTrace, run_sessions
from .server import add_server, networks, server

SESSIONS = (1, 2, 3, 4)
FORMATS = ("bgr", "jpeg", "mouth")
LATE_MS = 100.0
KEEPS_UP_MS = 250.0  # limit for the p95 of the last second; sessions that fall behind are seconds late by then
WARM_UP_SECONDS = 1.0
_COLUMNS = ("sessions", "frames/s", "median ms", "p95 ms", "worst ms", f"over {LATE_MS:.0f} ms", "last second", "")


@dataclass(frozen=True)
class LatencyStats:
    """Statistics of a number of concurrent sessions.

    The latency of a frame is counted from its earliest possible time: `index / fps + LATENCY` after the first sample,
    when the last sample that the frame depends on is available. At 25 frames per second, 27.5 ms of the latency are the
    time until the chunk of 40 ms with that sample is full. Frames that depend on the end of the speech are not counted:
    they are early, because they need no further samples.

    Attributes:
        sessions: number of concurrent sessions.
        frames: number of counted frames, of all sessions.
        frames_per_second: counted frames ÷ time from the earliest possible first frame to the last arrival.
        median_ms, p95_ms, p99_ms, worst_ms: of the latency.
        late_percent: percentage of frames with a latency over `LATE_MS`.
        end_p95_ms: p95 of the latency in the last second.
    """

    sessions: int
    frames: int
    frames_per_second: float
    median_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    late_percent: float
    end_p95_ms: float

    @property
    def keeps_up(self) -> bool:
        """Whether the latency does not grow; with too many sessions, frames are seconds late at the end."""
        return self.end_p95_ms < KEEPS_UP_MS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `live`."""
    add_server(parser)
    load = parser.add_argument_group("load")
    load.add_argument(
        "--sessions",
        type=positive_ints,
        default=SESSIONS,
        metavar="N,…",
        help="numbers of concurrent sessions (default: 1,2,3,4)",
    )
    load.add_argument("--seconds", type=_seconds, default=10.0, help="duration of the speech (default: 10)")
    load.add_argument("--frames", choices=FORMATS, default="jpeg", help="format of the frames (default: jpeg)")
    parser.add_argument(
        "--out", type=Path, default=OUT / "live.json", help="JSON file of all results (default: out/live.json)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure each number of sessions, print and write the results."""
    plan = make_plan(args.seconds, args.frames)
    with server(args, max(args.sessions)) as target:
        served = networks(target.url)
        runs, failures = asyncio.run(sweep(target.url, plan, args.sessions))
    print(f"\n{text(runs, failures, served)}")
    write(runs, failures, served, plan, args.out)
    print(f"wrote {args.out}")
    return FAILED if failures else DONE


def make_plan(seconds: float, frame_format: str, samples: Path = SAMPLES) -> LivePlan:
    """Return a plan with the portrait and the speech of the project, repeated if too short. Raises OSError."""
    speech, rate = soundfile.read(samples / "speech.wav", dtype="int16")
    if rate != SAMPLE_RATE:
        raise OSError(f"{samples / 'speech.wav'}: {rate} Hz instead of {SAMPLE_RATE}")
    return LivePlan((samples / "face.png").read_bytes(), np.resize(speech, int(seconds * SAMPLE_RATE)), frame_format)


async def sweep(url: str, plan: LivePlan, sessions: Sequence[int]) -> tuple[list[LatencyStats], list[str]]:
    """Measure each number of sessions, after a warm-up; return the statistics, and a line for each failure."""
    runs: list[LatencyStats] = []
    failures: list[str] = []
    warm = LivePlan(plan.face, plan.speech[: int(WARM_UP_SECONDS * SAMPLE_RATE)], plan.format)
    await measure(url, warm, 1)  # fills the avatar cache, compiles code
    for count in sessions:
        try:
            runs.append(await measure(url, plan, count))
        except LiveError as error:
            failures.append(f"{count} concurrent: {error}")
            print(f"{failures[-1]}; FAILED", flush=True)
            continue
        run = runs[-1]
        print(f"{count} concurrent: {run.frames_per_second:,.1f} frames/s, p95 {run.p95_ms:,.0f} ms", flush=True)
    return runs, failures


async def measure(url: str, plan: LivePlan, sessions: int) -> LatencyStats:
    """Run this number of concurrent sessions. Raises LiveError if one of them failed."""
    return latency_stats(await run_sessions(url, plan, sessions), plan.speech.size / SAMPLE_RATE)


def latency_stats(traces: Sequence[SessionTrace], seconds: float) -> LatencyStats:
    """Return the statistics of concurrent sessions with this many seconds of speech.

    Raises:
        LiveError: the speech was too short for a frame, or frames are missing.
    """
    latencies, end_latencies, last = list[float](), list[float](), 0.0
    for session in traces:
        # number of frames that do not depend on the end of the speech
        complete = math.floor((seconds - LATENCY) * session.fps) + 1
        counted = [frame for frame in session.frames if frame.index < complete]
        if complete < 1 or [frame.index for frame in counted] != list(range(complete)):
            raise LiveError(f"received {len(counted)} frames for {seconds:g} s of speech instead of {complete}")
        for frame in counted:
            earliest = float(frame.index / session.fps) + LATENCY
            latencies.append(1000 * (frame.seconds - earliest))
            last = max(last, frame.seconds)
            if earliest > seconds - 1:
                end_latencies.append(latencies[-1])
    median, p95, p99, worst = np.percentile(latencies, (50, 95, 99, 100)).tolist()
    return LatencyStats(
        sessions=len(traces),
        frames=len(latencies),
        frames_per_second=len(latencies) / (last - LATENCY),
        median_ms=median,
        p95_ms=p95,
        p99_ms=p99,
        worst_ms=worst,
        late_percent=100 * float(np.mean(np.array(latencies) > LATE_MS)),
        end_p95_ms=float(np.percentile(end_latencies, 95)),
    )


def max_sessions(runs: Sequence[LatencyStats]) -> int:
    """Return the largest number of sessions that keep up, or 0."""
    return max((run.sessions for run in runs if run.keeps_up), default=0)


def text(runs: Sequence[LatencyStats], failures: Sequence[str], served: Mapping[str, str]) -> str:
    """Return the table, the number of sessions that keep up, and the failures, as Markdown."""
    cells = [
        (
            run.sessions,
            f"{run.frames_per_second:,.1f}",
            *(f"{value:,.0f}" for value in (run.median_ms, run.p95_ms, run.worst_ms)),
            f"{run.late_percent:.1f} %",
            f"{run.end_p95_ms:,.0f}",
            "keeps up" if run.keeps_up else "falls behind",
        )
        for run in runs
    ]
    parts = [f"Networks: {', '.join(f'{name} {what}' for name, what in served.items())}. {usable_cores()} cores."]
    if cells:
        aligned = (*["right"] * (len(_COLUMNS) - 1), "left")
        parts.append(str(tabulate(cells, _COLUMNS, tablefmt="github", colalign=aligned, disable_numparse=True)))
        parts.append(f"Sessions that keep up: {max_sessions(runs)}.")
    if failures:
        parts.append("\n".join(("Not measured:", *(f"- {failure}" for failure in failures))))
    return "\n\n".join(parts)


def write(
    runs: Sequence[LatencyStats], failures: Sequence[str], served: Mapping[str, str], plan: LivePlan, out: Path
) -> None:
    """Write all results as JSON."""
    content = {
        "machine": processor_name(),
        "cores": usable_cores(),
        "networks": dict(served),
        "format": plan.format,
        "seconds": plan.speech.size / SAMPLE_RATE,
        "runs": [asdict(run) | {"keeps_up": run.keeps_up} for run in runs],
        "failures": list(failures),
        "max_sessions": max_sessions(runs),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds from 1 to 3600")
    return seconds
