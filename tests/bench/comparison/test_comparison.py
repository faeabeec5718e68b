"""`bench compare`: media, memory monitor, the process of the original algorithm, the runner with live servers."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import soundfile

from bench.comparison import generated_media, original, report
from bench.comparison.baseline import BareRuntime
from bench.comparison.memory_monitor import MemoryMonitor
from bench.comparison.original import Sample
from bench.comparison.original_process import OriginalProcess
from bench.comparison.results import (
    CACHED_AVATAR,
    COLD,
    CONCURRENT,
    ENCODER,
    ENCODER_ALL_CORES,
    NEW_AVATAR,
    ORIGINAL,
    SEQUENTIAL,
    WorkloadResult,
    bare_networks,
)
from bench.comparison.runner import Runner, Service
from bench.comparison.workloads import Goals, Kind, Workload
from embedded.server import Triton
from export.checkpoints.load import load_s3fd
from export.checkpoints.registry import S3FD_FILE
from export.variants import Precision, Profile
from tests.support.gateway_process import Gateway

SMALL = Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32)


def frames_of(video: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


@pytest.mark.slow
def test_the_face_of_a_generated_video_moves_and_is_detected_in_every_sampled_frame(
    stand_in_weights: Path, tmp_path: Path
) -> None:
    files = generated_media.files(Workload(Kind.VIDEO, 320, 240, 4, Precision.FP32), tmp_path)
    frames = frames_of(files.face)
    assert (len(frames), frames[0].shape) == (100, (240, 320, 3))
    boxes = original.detect(load_s3fd(stand_in_weights / S3FD_FILE), frames[::11], 4)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (np.ptp(centers, axis=0) > 8).all()
    assert np.abs(centers - (160, 120)).max() < 60
    still = np.abs(frames[50][:20, :20].astype(int) - frames[0][:20, :20])
    assert still.mean() < 12  # the background does not move


def test_media_are_generated_once_and_the_speech_has_the_requested_duration(tmp_path: Path) -> None:
    workload = Workload(Kind.STILL, 64, 48, 10, Precision.FP32)
    files = generated_media.files(workload, tmp_path)
    assert soundfile.info(files.speech).duration == 10
    written = files.face.stat().st_mtime_ns
    assert generated_media.files(workload, tmp_path).face.stat().st_mtime_ns == written


@pytest.mark.parametrize("kind", list(Kind))
def test_a_unique_copy_has_the_same_content_and_other_bytes(kind: Kind, tmp_path: Path) -> None:
    face = generated_media.files(Workload(kind, 64, 48, 0.4, Precision.FP32), tmp_path).face
    unique = generated_media.UniqueCopies(tmp_path)
    copies = [unique.of(face), unique.of(face)]
    assert len({path.read_bytes() for path in (face, *copies)}) == 3
    for copy in copies:
        if kind is Kind.VIDEO:
            np.testing.assert_array_equal(frames_of(copy), frames_of(face))
        else:
            np.testing.assert_array_equal(cv2.imread(str(copy)), cv2.imread(str(face)))


ALLOCATING = """
import subprocess, sys
held = b"x" * (120 << 20)
subprocess.run([sys.executable, "-c", "import sys; held = b'x' * (60 << 20); sys.stdin.read()"])
"""


def test_the_monitor_measures_a_process_and_its_children() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", ALLOCATING], stdin=subprocess.PIPE) as process,
        MemoryMonitor("it", {"root": process.pid}) as memory,
    ):
        end = time.monotonic() + 120
        while _child_peak(memory) <= 60 << 20 and time.monotonic() < end:
            time.sleep(0.05)
        process.communicate()  # the child has read all of its input, and ends
    assert 120 < memory.peaks["root"].bytes / (1 << 20) < 160
    assert 60 < _child_peak(memory) / (1 << 20) < 100
    assert memory.peaks["it, total"].bytes > 180 << 20
    assert memory.peaks["it, total"].processes == 2


def _child_peak(memory: MemoryMonitor) -> int:
    return max((peak.bytes for name, peak in list(memory.peaks.items()) if name.startswith("root: python")), default=0)


@pytest.fixture(scope="module")
def start_original(stand_in_weights: Path) -> Iterator[Callable[[], OriginalProcess]]:
    """Return the process of the original algorithm, which is started where none runs: its imports take seconds."""
    with ExitStack() as processes:
        started: list[OriginalProcess] = []

        def start() -> OriginalProcess:
            if not started or not psutil.pid_exists(started[-1].pid):
                started.append(processes.enter_context(OriginalProcess(stand_in_weights, "cpu")))
            return started[-1]

        yield start


@pytest.fixture
def service(gateway: Gateway, triton: Triton) -> Service:
    """The session's gateway and Triton; the process ids are those of Triton and of this process."""
    return Service(gateway.url, {"Triton": triton.pid, "gateway": os.getpid()})


def test_a_workload_is_measured_in_all_ways(
    service: Service, tiny_exports: Path, start_original: Callable[[], OriginalProcess], tmp_path: Path
) -> None:
    args = Namespace(work=tmp_path, rounds=1, sample=0.06, no_original=False, profile=Profile.CPU, format=None)
    networks = BareRuntime(tiny_exports)
    assert (networks.variant, networks.served) == ("onnx fp32", "onnxruntime")
    result = WorkloadResult(SMALL, networks.variant, networks.served)
    Runner(args, {"pads": "0,10,0,0"}).measure_one(result, networks, start_original(), service)
    bare = [bare_networks("onnxruntime"), bare_networks("OpenVINO")]
    assert result.subjects == [COLD, ORIGINAL, NEW_AVATAR, CACHED_AVATAR, *bare, ENCODER]
    assert result.frames == 15
    assert result.speedup is not None
    assert result.cached_ratio is not None
    assert result.scaled["the original's detection"] == (2, 12)
    assert {"detection", "generation", "encode"} <= set(result.stages(NEW_AVATAR))
    assert {"original", "gateway", "Triton", "Triton: wav2lip"} <= set(result.memory)
    paths = report.write([result], tmp_path / "out" / "bench.json")
    assert [path.name for path in paths] == ["bench.json", "bench.md", "bench.png"]
    assert all(path.stat().st_size for path in paths)


@pytest.mark.xdist_group("live")  # with the other test of that process
def test_the_process_of_the_original_reports_an_error_and_continues(
    start_original: Callable[[], OriginalProcess], tmp_path: Path
) -> None:
    files = generated_media.files(SMALL, tmp_path)
    running = start_original()
    with pytest.raises(ValueError, match="not a video"):
        running.clip(generated_media.Files(files.speech, files.speech), 4, Sample())
    stages = running.clip(files, 4, Sample(detection=2, generation=2))
    assert stages.scaled == {"detection": (2, 12), "generation": (2, 12)}
    os.kill(running.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match="the process of the original algorithm has ended"):
        running.clip(files, 4, Sample())
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def test_concurrent_forms_are_compared_with_sequential_ones(
    service: Service, tiny_exports: Path, tmp_path: Path
) -> None:
    args = Namespace(work=tmp_path, rounds=1, sample=0, no_original=True, profile=Profile.CPU, format=None)
    goals = Goals(concurrent_ratio=0.9, unfairness=2, encoder_ratio=0.8)
    workload = Workload(Kind.STILL, 160, 120, 0.4, Precision.FP32, goals, forms=3)
    result = WorkloadResult(workload, "onnx fp32", "onnxruntime")
    Runner(args, {}).measure_one(result, BareRuntime(tiny_exports), None, service)
    assert result.subjects == [COLD, SEQUENTIAL, CONCURRENT, ENCODER_ALL_CORES]
    assert [len(timing.waits) for timing in result.timings] == [0, 3, 3, 0]
    assert all(verdict.met is not None for verdict in result.verdicts())
