"""Time the start of jobs, of this checkout and of another commit in turn."""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import wave
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from avatar.media.ffmpeg import executable

from ..errors import BenchError
from ..paths import ROOT, SAMPLES

WORKER = Path(__file__).with_name("worker.py")
PACKAGES = ("avatar", "lipsync", "client")  # what a job imports
WIDTH, HEIGHT, FPS = 640, 480, 25
STILL_SECONDS, VIDEO_SECONDS = 1, 4  # of speech; a video of 4 s is one of which frames are sampled
WARM_UPS = 2  # jobs of each kind before the first one that counts


@dataclass(frozen=True)
class Workload:
    """The files of a job."""

    name: str
    face: Path
    speech: Path
    still: bool


@dataclass(frozen=True)
class Run:
    """What one job took: seconds until its first frame was encoded and in all, processor seconds, and processes."""

    first: float
    total: float
    cpu: float
    processes: int


@dataclass(frozen=True)
class Result:
    """The runs of one workload, round by round; `before` is empty without another commit."""

    workload: str
    before: tuple[Run, ...]
    after: tuple[Run, ...]

    def ratio(self, measure: str) -> float:
        """Return the median of the rounds' ratios, after to before."""
        pairs = zip(self.before, self.after, strict=True)
        ratios = [float(getattr(after, measure) / getattr(before, measure)) for before, after in pairs]
        return statistics.median(ratios)


class Worker:
    """A process that runs the jobs of one checkout."""

    def __init__(self, checkout: Path) -> None:
        paths = [str(checkout), str(checkout / "client")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, workload: Workload) -> Run:
        """Do one job. Raises BenchError if it fails; its traceback is on stderr."""
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise BenchError("the process of the jobs has no pipes")
        job = {"face": str(workload.face), "speech": str(workload.speech), "still": workload.still}
        try:
            pipe_in.write(json.dumps(job) + "\n")
            pipe_in.flush()
        except BrokenPipeError as error:
            raise BenchError("the process of the jobs has ended") from error
        answer = pipe_out.readline()
        if not answer:
            raise BenchError(f"the job of {workload.name} failed")
        return Run(**json.loads(answer))

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(checkout: Path) -> Iterator[Worker]:
    """Give a worker; end it afterwards."""
    worker = Worker(checkout)
    try:
        yield worker
    finally:
        worker.close()


def extract(commit: str, folder: Path) -> Path:
    """Write the packages of a commit into `folder` and return it. Raises BenchError if git does not know it."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, *PACKAGES]
    archive = subprocess.run(command, capture_output=True)
    if archive.returncode:
        raise BenchError(f"--against {commit}: {archive.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def workloads(folder: Path) -> list[Workload]:
    """Write the files of the jobs into `folder`."""
    portrait = cv2.imread(str(SAMPLES / "face.png"))
    still = folder / "face.png"
    cv2.imwrite(str(still), cv2.resize(np.asarray(portrait), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    plain = _speech(folder / "speech.wav", STILL_SECONDS, 16_000)
    cd = _speech(folder / "speech-44100.wav", STILL_SECONDS, 44_100)
    mp3 = _converted(plain, folder / "speech.mp3")
    video = folder / "face.mp4"
    swaying = f"scale={WIDTH + 40}:-2,crop={WIDTH}:{HEIGHT}:'20+12*sin(n/9)':'8+6*cos(n/7)'"
    loop = ("-loop", "1", "-framerate", str(FPS), "-i", str(still), "-t", str(VIDEO_SECONDS))
    _ffmpeg(*loop, "-vf", swaying, "-pix_fmt", "yuv420p", "-preset", "veryfast", str(video))
    long = _speech(folder / "long.wav", VIDEO_SECONDS, 16_000)
    return [
        Workload("still, WAV of 16 kHz", still, plain, still=True),
        Workload("still, WAV of 44.1 kHz", still, cd, still=True),
        Workload("still, MP3", still, mp3, still=True),
        Workload("video, WAV of 16 kHz", video, long, still=False),
        Workload("video, MP3", video, _converted(long, folder / "long.mp3"), still=False),
    ]


def compare(jobs: Sequence[Workload], before: Path | None, rounds: int) -> Iterator[Result]:
    """Measure each workload for this checkout and, in turn with it, for the one in the folder `before`."""
    with ExitStack() as stack:
        workers = [stack.enter_context(running(ROOT))]
        if before:
            workers.insert(0, stack.enter_context(running(before)))
        for job in jobs:
            runs: dict[Worker, list[Run]] = {worker: [] for worker in workers}
            for _ in range(WARM_UPS):
                for worker in workers:
                    worker.run(job)
            for n in range(rounds):
                for worker in workers if n % 2 else workers[::-1]:
                    runs[worker].append(worker.run(job))
            found = [tuple(each) for each in runs.values()]
            yield Result(job.name, found[0] if before else (), found[-1])


def _speech(path: Path, seconds: float, rate: int) -> Path:
    """Write a tone that swells like a voice, 16-bit mono."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 220 * t) * np.abs(np.sin(3 * np.pi * t))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    return path


def _converted(path: Path, target: Path) -> Path:
    _ffmpeg("-i", str(path), str(target))
    return target


def _ffmpeg(*args: str) -> None:
    subprocess.run([executable(), "-nostdin", "-loglevel", "error", *args], check=True)
