"""The parts of the bench around the nets: media, the watch over memory, the original's process, the command line."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from bench.comparison import cli, generated_media, original
from bench.comparison.baseline import BareRuntime
from bench.comparison.cli import Bench
from bench.comparison.memory_monitor import MemoryMonitor
from bench.comparison.original import Sample
from bench.comparison.original_process import OriginalProcess
from bench.comparison.results import (
    CACHED_AVATAR,
    SEQUENTIAL,
    COLD,
    ENCODER,
    NEW_AVATAR,
    ORIGINAL,
    CONCURRENT,
    ENCODER_ALL_CORES,
    WorkloadResult,
    bare_networks,
)
from bench.comparison.workloads import Goals, Kind, Workload
from export.checkpoints.load import load_s3fd
from export.checkpoints.registry import S3FD_FILE
from export.variants import Precision, Profile

ROOT = Path(__file__).parents[3]
SMALL = Workload(Kind.VIDEO, 192, 144, 0.6, Precision.FP32)


def frames_of(video: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    return frames


def test_the_face_of_a_made_video_moves_and_is_found_in_every_frame_that_is_looked_at(
    stand_in_weights: Path, tmp_path: Path
) -> None:
    files = generated_media.files(Workload(Kind.VIDEO, 320, 240, 4, Precision.FP32), tmp_path)
    frames = frames_of(files.face)
    assert (len(frames), frames[0].shape) == (100, (240, 320, 3))
    found = original.detect(load_s3fd(stand_in_weights / S3FD_FILE), frames[::11], 4)
    centres = (found[:, :2] + found[:, 2:]) / 2
    assert (np.ptp(centres, axis=0) > 8).all()
    assert np.abs(centres - (160, 120)).max() < 60
    still = np.abs(frames[50][:20, :20].astype(int) - frames[0][:20, :20])
    assert still.mean() < 12  # the wall stays where it is


def test_media_are_made_once_and_speech_is_as_long_as_it_is_asked_for(tmp_path: Path) -> None:
    work = Workload(Kind.STILL, 64, 48, 10, Precision.FP32)
    files = generated_media.files(work, tmp_path)
    assert soundfile.info(files.speech).duration == 10
    made = files.face.stat().st_mtime_ns
    assert generated_media.files(work, tmp_path).face.stat().st_mtime_ns == made


@pytest.mark.parametrize("kind", list(Kind))
def test_a_fresh_copy_shows_the_same_and_has_other_bytes(kind: Kind, tmp_path: Path) -> None:
    face = generated_media.files(Workload(kind, 64, 48, 0.4, Precision.FP32), tmp_path).face
    fresh = generated_media.UniqueCopies(tmp_path)
    copies = [fresh.of(face), fresh.of(face)]
    assert len({path.read_bytes() for path in (face, *copies)}) == 3
    for copy in copies:
        if kind is Kind.VIDEO:
            np.testing.assert_array_equal(frames_of(copy), frames_of(face))
        else:
            np.testing.assert_array_equal(cv2.imread(str(copy)), cv2.imread(str(face)))


HUNGRY = """
import subprocess, sys
held = b"x" * (120 << 20)
subprocess.run([sys.executable, "-c", "import time; held = b'x' * (60 << 20); time.sleep(1.5)"])
"""


def test_the_watch_sees_a_process_and_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", HUNGRY]) as hungry, MemoryMonitor("it", {"hungry": hungry.pid}) as watch:
        hungry.wait()
    child = next(name for name in watch.peaks if name.startswith("hungry: python"))
    assert 120 < watch.peaks["hungry"].bytes / (1 << 20) < 160
    assert 60 < watch.peaks[child].bytes / (1 << 20) < 100
    assert watch.peaks["it, together"].bytes > 180 << 20
    assert watch.peaks["it, together"].processes == 2


def test_the_original_in_its_own_process_tells_what_went_wrong_and_works_on(
    stand_in_weights: Path, tmp_path: Path
) -> None:
    files = generated_media.files(SMALL, tmp_path)
    with OriginalProcess(stand_in_weights, "cpu") as apart:
        with pytest.raises(ValueError, match="not a video"):
            apart.clip(generated_media.Files(files.speech, files.speech), 4, Sample())
        stages = apart.clip(files, 4, Sample(detection=2))
        assert stages.scaled == {"detection": (2, 12)}
        os.kill(apart.pid, signal.SIGKILL)
        with pytest.raises(ValueError, match="process has ended"):
            apart.clip(files, 4, Sample())
    with pytest.raises(ProcessLookupError):
        os.kill(apart.pid, 0)


def test_one_work_is_measured_over_a_live_stack(repository: Path, stand_in_weights: Path, tmp_path: Path) -> None:
    options = Namespace(work=tmp_path, rounds=1, sample=0.06, no_original=False, profile=Profile.CPU, format=None)
    floor = BareRuntime(repository)
    assert (floor.variant, floor.served) == ("onnx fp32", "onnxruntime")
    measured = WorkloadResult(SMALL, floor.variant, floor.served)
    with OriginalProcess(stand_in_weights, "cpu") as apart:
        Bench(options, {"pads": "0,10,0,0"}).work(measured, floor, apart, repository)
    who = [COLD, ORIGINAL, NEW_AVATAR, CACHED_AVATAR, bare_networks("onnxruntime"), bare_networks("OpenVINO"), ENCODER]
    assert measured.subjects == who
    assert measured.frames == 15
    assert measured.speedup is not None
    assert measured.cached_ratio is not None
    assert measured.scaled["the original's detection"] == (2, 12)
    assert {"detection", "generation", "encode"} <= set(measured.stages(NEW_AVATAR))
    assert {"original", "gateway", "Triton: tritonserver", "Triton: wav2lip"} <= set(measured.memory)
    cli.write([measured], tmp_path / "out" / "bench.json")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md", "bench.png"]


def test_forms_at_once_are_measured_against_as_many_one_after_another(repository: Path, tmp_path: Path) -> None:
    options = Namespace(work=tmp_path, rounds=1, sample=0, no_original=True, profile=Profile.CPU, format=None)
    goals = Goals(concurrent_ratio=0.9, unfairness=2, encoder_ratio=0.8)
    measured = WorkloadResult(Workload(Kind.STILL, 160, 120, 0.4, Precision.FP32, goals, forms=3), "onnx fp32", "onnxruntime")
    Bench(options, {}).work(measured, BareRuntime(repository), None, repository)
    assert measured.subjects == [COLD, SEQUENTIAL, CONCURRENT, ENCODER_ALL_CORES]
    assert [len(timing.waits) for timing in measured.timings] == [0, 3, 3, 0]
    assert all(verdict.met is not None for verdict in measured.verdicts())


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True)


def test_the_list_names_works_and_goals_and_marks_what_would_be_measured() -> None:
    done = bench("--list", "--works", "still-480p", "--precision", "int8")
    assert done.returncode == 0
    marked = [line for line in done.stdout.splitlines() if line.startswith("* ")]
    assert len(marked) == 1
    assert "still-480p-int8" in marked[0]
    assert "original ÷ service ≥ 8" in marked[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--works", "nothing"), "no work is named 'nothing'"),
        (("--field", "detection"), "NAME=VALUE expected"),
        (("--rounds", "0"), "--rounds"),
        (("--works", "still-480p-int8", "--profile", "gpu"), "only fp16 is measured here"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(words: tuple[str, ...], said: str) -> None:
    done = bench(*words)
    assert done.returncode == 2
    assert said in done.stderr


def test_ctrl_c_ends_it_and_all_that_it_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--works", "still-360p-fp32", "--work", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "weights" / "README.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "bench: interrupted" in said
    assert "Traceback" not in said
