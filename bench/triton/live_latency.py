"""`python -m bench live`: live sessions at the pace of speech, and how late their frames come."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from tabulate import tabulate
from tritonclient.utils import InferenceServerException

from demo.stack import StackError
from embedded.errors import EmbeddedError
from lipsync.mel import SAMPLE_RATE
from lipsync.mel_stream import LATENCY
from lipsync.triton.cpu import usable_cores

from .live_client import LiveError, Plan, Spoken, speak
from .sweep import add_server, numbers, served_as, server

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = (1, 2, 3, 4)
FORMATS = ("bgr", "jpeg", "mouth")
LATE_MS = 100.0
KEEPS_UP_MS = 250.0  # of the last second's p95; who does not keep up is seconds late by then
WARM_SECONDS = 1.0
_COLUMNS = ("sessions", "frames/s", "median ms", "p95 ms", "worst ms", f"over {LATE_MS:.0f} ms", "at the end", "")


@dataclass(frozen=True)
class Figures:
    """What so many sessions at once gave.

    A frame's latency is counted from its floor, `index / fps + LATENCY` after the first sample, when the last one that
    it hears has been spoken. At 25 frames a second 27.5 ms of it are the wait until the piece of 40 ms is full in which
    that one is sent. Frames that hear the speech's end are not counted: they come early, as nobody has to be heard.

    Attributes:
        sessions: at once.
        frames: of all of them.
        frames_a_second: of all of them; that many frames over the time from the first floor to the last arrival.
        median_ms, p95_ms, worst_ms: latency.
        late_percent: frames over `LATE_MS`.
        end_p95_ms: latency of those whose floor lies in the last second.
    """

    sessions: int
    frames: int
    frames_a_second: float
    median_ms: float
    p95_ms: float
    worst_ms: float
    late_percent: float
    end_p95_ms: float

    @property
    def keeps_up(self) -> bool:
        """Whether latency does not grow: more sessions than the server can carry are seconds late at the end."""
        return self.end_p95_ms < KEEPS_UP_MS


def main(words: Sequence[str]) -> int:
    """Exit status: 0 done, 1 failed (or a part of it), 2 wrong usage, 130 ended by Ctrl-C."""
    options = _parser().parse_args(words)
    for number in (signal.SIGINT, signal.SIGTERM):  # both end it cleanly, also where a shell's `&` has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        plan = make_plan(options.seconds, options.frames)
        with server(options, max(options.sessions)) as url:
            nets = served_as(url)
            runs, failures = asyncio.run(sweep(url, plan, options.sessions))
    except (LiveError, StackError, EmbeddedError, InferenceServerException, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{text(runs, failures, nets)}")
    write(runs, failures, nets, plan, options.out)
    print(f"in {options.out}")
    return 1 if failures else 0


def make_plan(seconds: float, form: str, samples: Path = ROOT / "samples") -> Plan:
    """The portrait and the speech that ship with the project, over and over where it is too short. Raises OSError."""
    speech, rate = soundfile.read(samples / "speech.wav", dtype="int16")
    if rate != SAMPLE_RATE:
        raise OSError(f"{samples / 'speech.wav'}: {rate} Hz, {SAMPLE_RATE} expected")
    return Plan((samples / "face.png").read_bytes(), np.resize(speech, int(seconds * SAMPLE_RATE)), form)


async def sweep(url: str, plan: Plan, sessions: Sequence[int]) -> tuple[list[Figures], list[str]]:
    """Every number of sessions in turn, after one that warms up; one that fails is told and does not end the others."""
    runs: list[Figures] = []
    failures: list[str] = []
    warm = Plan(plan.face, plan.speech[: int(WARM_SECONDS * SAMPLE_RATE)], plan.format)
    await measure(url, warm, 1)  # the face is remembered, and code is compiled
    for count in sessions:
        try:
            runs.append(await measure(url, plan, count))
        except LiveError as error:
            failures.append(f"{count} at once: {error}")
            print(f"{failures[-1]}; FAILED", flush=True)
            continue
        run = runs[-1]
        print(f"{count} at once: {run.frames_a_second:,.1f} frames/s, p95 {run.p95_ms:,.0f} ms late", flush=True)
    return runs, failures


async def measure(url: str, plan: Plan, sessions: int) -> Figures:
    """So many sessions at once. Raises LiveError where one of them failed."""
    return judge(await speak(url, plan, sessions), plan.speech.size / SAMPLE_RATE)


def judge(spoken: Sequence[Spoken], seconds: float) -> Figures:
    """The figures of sessions that spoke for so long.

    Raises:
        LiveError: the speech was too short for a frame, or frames are missing.
    """
    late, ends, last = list[float](), list[float](), 0.0
    for session in spoken:
        whole = math.floor((seconds - LATENCY) * session.fps) + 1  # frames that hear nothing behind the speech
        counted = [frame for frame in session.frames if frame.index < whole]
        if whole < 1 or [frame.index for frame in counted] != list(range(whole)):
            raise LiveError(f"{len(counted)} frames of {seconds:g} s, {whole} expected")
        for frame in counted:
            floor = float(frame.index / session.fps) + LATENCY
            late.append(1000 * (frame.seconds - floor))
            last = max(last, frame.seconds)
            if floor > seconds - 1:
                ends.append(late[-1])
    median, p95, worst = np.percentile(late, (50, 95, 100)).tolist()
    return Figures(
        sessions=len(spoken),
        frames=len(late),
        frames_a_second=len(late) / (last - LATENCY),
        median_ms=median,
        p95_ms=p95,
        worst_ms=worst,
        late_percent=100 * float(np.mean(np.array(late) > LATE_MS)),
        end_p95_ms=float(np.percentile(ends, 95)),
    )


def most(runs: Sequence[Figures]) -> int:
    """The largest number of sessions that keeps up; 0: none."""
    return max((run.sessions for run in runs if run.keeps_up), default=0)


def text(runs: Sequence[Figures], failures: Sequence[str], nets: Mapping[str, str]) -> str:
    """The table and what belongs to it, as Markdown."""
    cells = [
        (
            run.sessions,
            f"{run.frames_a_second:,.1f}",
            *(f"{value:,.0f}" for value in (run.median_ms, run.p95_ms, run.worst_ms)),
            f"{run.late_percent:.1f} %",
            f"{run.end_p95_ms:,.0f}",
            "keeps up" if run.keeps_up else "falls behind",
        )
        for run in runs
    ]
    parts = [f"Nets: {', '.join(f'{name} {what}' for name, what in nets.items())}. {usable_cores()} cores here."]
    if cells:
        aligned = (*["right"] * (len(_COLUMNS) - 1), "left")
        parts.append(str(tabulate(cells, _COLUMNS, tablefmt="github", colalign=aligned, disable_numparse=True)))
        parts.append(f"Sessions that keep up: {most(runs)}.")
    if failures:
        parts.append("\n".join(("Not measured:", *(f"- {failure}" for failure in failures))))
    return "\n\n".join(parts)


def write(runs: Sequence[Figures], failures: Sequence[str], nets: Mapping[str, str], plan: Plan, out: Path) -> None:
    """All of it, as JSON."""
    whole = {
        "machine": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "nets": dict(nets),
        "format": plan.format,
        "seconds": plan.speech.size / SAMPLE_RATE,
        "runs": [asdict(run) | {"keeps_up": run.keeps_up} for run in runs],
        "failures": list(failures),
        "most": most(runs),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench live",
        description="Live sessions at the pace of speech: frames a second, and how late they come; docs/perf.md",
        epilog="Exit status: 0 done, 1 failed (or a part of it), 2 wrong usage, 130 ended by Ctrl-C.",
    )
    add_server(parser)
    what = parser.add_argument_group("the load")
    what.add_argument("--sessions", type=numbers, default=SESSIONS, metavar="N,…", help="at once (default 1,2,3,4)")
    what.add_argument("--seconds", type=_seconds, default=10.0, help="of speech in each session (default 10)")
    what.add_argument("--frames", choices=FORMATS, default="jpeg", help="what they come as (default jpeg)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="models and logs of the bench")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "live.json", help="every figure, as JSON")
    return parser


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{word}: 1 to 3600 expected")
    return seconds
