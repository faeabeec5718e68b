"""`python -m bench live`: its measurements, its output and its files."""

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
from bench.__main__ import main
from bench.triton import live_latency
from bench.triton.live_client import FrameArrival, LiveError, LivePlan, SessionTrace, run_sessions
from bench.triton.live_latency import LatencyStats
from embedded.server import Triton
from lipsync.mel_stream import LATENCY

FPS = Fraction(25)
SECONDS = 10.0
COUNTED = 245  # frames that do not depend on the end of ten seconds of speech


def trace(latencies: list[float]) -> SessionTrace:
    """A session with these latencies; its last frames, which depend on the end of the speech, arrive together."""
    frames = [FrameArrival(n, n / 25 + LATENCY + each) for n, each in enumerate(latencies)]
    return SessionTrace(FPS, [*frames, *(FrameArrival(n, SECONDS) for n in range(len(latencies), len(latencies) + 7))])


def stats(sessions: int, end_p95_ms: float) -> LatencyStats:
    return LatencyStats(sessions, 245, 24.9, 40.0, 1234.5, 1500.0, 2000.0, 12.5, end_p95_ms)


def test_latency_is_counted_from_the_earliest_possible_time() -> None:
    stats = live_latency.latency_stats([trace([0.03] * COUNTED), trace([0.05] * (COUNTED - 49) + [0.11] * 49)], SECONDS)
    assert (stats.sessions, stats.frames) == (2, 2 * COUNTED)
    assert stats.median_ms == pytest.approx(40)
    assert stats.worst_ms == stats.p95_ms == pytest.approx(110)
    assert stats.late_percent == pytest.approx(10)
    assert stats.frames_per_second == pytest.approx(50, rel=0.02)
    assert stats.keeps_up


def test_a_growing_latency_means_that_the_sessions_fall_behind() -> None:
    stats = live_latency.latency_stats([trace(np.linspace(0, 3, COUNTED).tolist())], SECONDS)
    assert stats.median_ms == pytest.approx(1500)
    assert stats.end_p95_ms > 2900
    assert not stats.keeps_up


@pytest.mark.parametrize("frames", [0, COUNTED - 8])
def test_missing_frames_are_an_error(frames: int) -> None:
    with pytest.raises(LiveError, match=f"instead of {COUNTED}$"):
        live_latency.latency_stats([trace([0.0] * frames)], SECONDS)


def test_a_report_is_a_table_and_a_file_of_stats(tmp_path: Path) -> None:
    runs = [stats(1, 55.0), stats(2, 249.0), stats(3, 3000.0)]
    plan = LivePlan(b"", np.zeros(16000, np.int16))
    output = live_latency.text(runs, ["4 concurrent: 503 too many"], {"s3fd": "openvino int8"})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("|")]
    assert cells[2] == ["1", "24.9", "40", "1,234", "2,000", "12.5 %", "55", "keeps up"]
    assert [line[-1] for line in cells[2:]] == ["keeps up", "keeps up", "falls behind"]
    assert "s3fd openvino int8" in output
    assert "Sessions that keep up: 2." in output
    assert "- 4 concurrent: 503 too many" in output
    live_latency.write(runs, [], {}, plan, tmp_path / "out" / "live.json")
    written = json.loads((tmp_path / "out" / "live.json").read_text())
    assert (written["max_sessions"], written["seconds"], len(written["runs"])) == (2, 1.0, 3)
    assert live_latency.max_sessions(runs[2:]) == 0
    assert "keep up" not in live_latency.text([], ["1 concurrent: away"], {})


def test_a_running_server_is_measured_and_too_many_sessions_are_reported(
    triton: Triton, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, too_many = tmp_path / "live.json", LiveSettings().live_sessions + 1
    words = ["--url", triton.grpc_address, "--sessions", f"{too_many},1", "--seconds", "1", "--out", str(out)]
    assert main(["live", *words]) == 1
    output = capsys.readouterr().out
    assert "1 concurrent: " in output
    assert "wav2lip onnxruntime fp32" in output
    written = json.loads(out.read_text())
    (run,) = written["runs"]
    assert (run["sessions"], run["frames"]) == (1, 20)
    assert 0 < run["median_ms"] <= run["p95_ms"] <= run["worst_ms"]
    assert 0 < run["frames_per_second"] < 27
    assert 0 <= run["late_percent"] <= 100
    (failure,) = written["failures"]
    assert failure.startswith(f"{too_many} concurrent: 503 limit of {too_many - 1} live sessions reached")


async def test_interrupted_sessions_end_at_once(triton: Triton) -> None:
    before = len(triton.log_path.read_text("utf-8", "replace"))

    async def sessions(event: str, number: int) -> set[str]:
        """Wait until the server has logged the event for `number` sessions; return their names."""
        deadline = time.monotonic() + 60
        while True:
            log = triton.log_path.read_text("utf-8", "replace")[before:]
            names = set(re.findall(rf"live \[(\d+)\] (?:{event})", log))
            assert "nothing came" not in log  # the idle timeout would end sessions that the client did not end
            if len(names) == number:
                return names
            assert time.monotonic() < deadline, log
            await asyncio.sleep(0.05)

    task = asyncio.create_task(run_sessions(triton.grpc_address, live_latency.make_plan(60.0, "jpeg"), 2))
    started = await sessions("session started", 2)
    await asyncio.sleep(0.5)  # requests are in flight
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sessions("session ended|the client disconnected", 2) == started


async def test_the_message_of_a_server_that_ends_a_stream_is_reported(triton: Triton) -> None:
    plan = LivePlan(b"not an image", np.zeros(16000, np.int16))
    with pytest.raises(LiveError, match=r"^400 face_file: not an image that can be read$"):
        await run_sessions(triton.grpc_address, plan, 2)


def test_an_unreachable_server_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", "--url", "127.0.0.1:1", "--out", str(tmp_path / "live.json")]) == 1
    assert capsys.readouterr().err.startswith("bench: ")
    assert not list(tmp_path.iterdir())
