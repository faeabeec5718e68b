"""`python -m bench live`: what it measures, what it says and leaves."""

from __future__ import annotations

import asyncio
import json
import re
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.settings import LiveSettings
from bench.triton import live_latency
from bench.triton.live_client import FrameArrival, LiveError, LivePlan, SessionTrace, run_sessions
from bench.triton.live_latency import LatencyStats
from embedded.server import Triton
from lipsync.mel_stream import LATENCY

FPS = Fraction(25)
SECONDS = 10.0
WHOLE = 245  # frames that hear nothing behind ten seconds


def spoken(late: list[float]) -> SessionTrace:
    """A session whose frames come so many seconds after their floors; those at the speech's end come at once."""
    frames = [FrameArrival(n, n / 25 + LATENCY + each) for n, each in enumerate(late)]
    return SessionTrace(FPS, [*frames, *(FrameArrival(n, SECONDS) for n in range(len(late), len(late) + 7))])


def figures(sessions: int, end_p95_ms: float) -> LatencyStats:
    return LatencyStats(sessions, 245, 24.9, 40.0, 1234.5, 2000.0, 12.5, end_p95_ms)


@pytest.mark.parametrize(
    "words",
    [("--sessions", "1,0"), ("--seconds", "0.5"), ("--seconds", "long"), ("--frames", "png"), ("--url", "8001")],
)
def test_wrong_usage_ends_with_2(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        live_latency.main(words)
    assert ended.value.code == 2


def test_latency_is_what_comes_after_the_floor() -> None:
    found = live_latency.latency_stats([spoken([0.03] * WHOLE), spoken([0.05] * (WHOLE - 49) + [0.11] * 49)], SECONDS)
    assert (found.sessions, found.frames) == (2, 2 * WHOLE)
    assert found.median_ms == pytest.approx(40)
    assert found.worst_ms == found.p95_ms == pytest.approx(110)
    assert found.late_percent == pytest.approx(10)
    assert found.frames_per_second == pytest.approx(50, rel=0.02)
    assert found.keeps_up


def test_frames_that_are_later_and_later_are_sessions_that_fall_behind() -> None:
    found = live_latency.latency_stats([spoken(np.linspace(0, 3, WHOLE).tolist())], SECONDS)
    assert found.median_ms == pytest.approx(1500)
    assert found.end_p95_ms > 2900
    assert not found.keeps_up


@pytest.mark.parametrize("frames", [0, WHOLE - 8])
def test_frames_that_do_not_come_are_an_error(frames: int) -> None:
    with pytest.raises(LiveError, match=f"{WHOLE} expected"):
        live_latency.latency_stats([spoken([0.0] * frames)], SECONDS)


def test_a_report_is_a_table_and_a_file_of_figures(tmp_path: Path) -> None:
    runs = [figures(1, 55.0), figures(2, 249.0), figures(3, 3000.0)]
    plan = LivePlan(b"", np.zeros(16000, np.int16))
    said = live_latency.text(runs, ["4 at once: 503 too many"], {"s3fd": "openvino int8"})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    assert cells[2] == ["1", "24.9", "40", "1,234", "2,000", "12.5 %", "55", "keeps up"]
    assert [line[-1] for line in cells[2:]] == ["keeps up", "keeps up", "falls behind"]
    assert "s3fd openvino int8" in said
    assert "Sessions that keep up: 2." in said
    assert "- 4 at once: 503 too many" in said
    live_latency.write(runs, [], {}, plan, tmp_path / "out" / "live.json")
    written = json.loads((tmp_path / "out" / "live.json").read_text())
    assert (written["most"], written["seconds"], len(written["runs"])) == (2, 1.0, 3)
    assert live_latency.max_sessions(runs[2:]) == 0
    assert "keep up" not in live_latency.text([], ["1 at once: away"], {})


def test_a_running_server_is_measured_and_a_session_too_many_told(
    triton: Triton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, too_many = tmp_path / "live.json", LiveSettings().live_sessions + 1
    words = ["--url", triton.grpc_address, "--sessions", f"{too_many},1", "--seconds", "1", "--out", str(out)]
    assert live_latency.main(words) == 1
    told = capsys.readouterr().out
    assert "1 at once: " in told
    assert "wav2lip onnxruntime fp32" in told
    written = json.loads(out.read_text())
    (run,) = written["runs"]
    assert (run["sessions"], run["frames"]) == (1, 20)
    assert 0 < run["median_ms"] <= run["p95_ms"] <= run["worst_ms"]
    assert 0 < run["frames_a_second"] < 27
    assert 0 <= run["late_percent"] <= 100
    (failure,) = written["failures"]
    assert failure.startswith(f"{too_many} at once: 503 {too_many - 1} live sessions are running")


async def test_sessions_that_are_interrupted_are_over_at_once(triton: Triton) -> None:
    before = len(triton.log_path.read_text("utf-8", "replace"))

    async def sessions(ends: str, number: int) -> set[str]:
        """Names of those of which the server has logged it, when they are so many."""
        deadline = time.monotonic() + 60
        while True:
            said = triton.log_path.read_text("utf-8", "replace")[before:]
            found = set(re.findall(rf"live \[(\d+)\] (?:{ends})", said))
            assert "nothing came" not in said  # that is how those end that nobody ended
            if len(found) == number:
                return found
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.05)

    task = asyncio.create_task(run_sessions(triton.grpc_address, live_latency.make_plan(60.0, "jpeg"), 2))
    begun = await sessions("session started", 2)
    await asyncio.sleep(0.5)  # pieces in flight
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sessions("session ended|the client disconnected", 2) == begun


async def test_a_server_that_ends_a_stream_is_told_in_its_own_words(triton: Triton) -> None:
    plan = LivePlan(b"no picture", np.zeros(16000, np.int16))
    with pytest.raises(LiveError, match=r"^400 face_file: not an image that can be read$"):
        await run_sessions(triton.grpc_address, plan, 2)


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live_latency.main(["--url", "127.0.0.1:1", "--out", str(tmp_path / "live.json")]) == 1
    assert capsys.readouterr().err.startswith("bench: ")
    assert not list(tmp_path.iterdir())
