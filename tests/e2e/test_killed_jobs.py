"""Jobs over HTTP while the gateway or PostgreSQL is killed: each ends once, with its video, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from avatar_client import AvatarJobs
from demo.stack import Ports
from embedded.postgres import Postgres
from embedded.server import Triton
from tests.support.files import files_below
from tests.support.media import read_video, tone, write_wav
from tests.support.postgres import server_options

ROOT = Path(__file__).parents[2]
LONG, SHORT = 150, 15  # frames; the long job is killed in the middle
FPS = 25
LIMIT = 180.0  # seconds, on a busy machine


@dataclass
class Service:
    """A gateway whose jobs survive it: it is started again with the same database, store and work folder."""

    folder: Path
    triton: Triton
    database_url: str
    port: int = field(default_factory=lambda: Ports.free().gateway)
    process: subprocess.Popen[bytes] | None = None

    @property
    def jobs(self) -> AvatarJobs:
        return AvatarJobs(f"http://127.0.0.1:{self.port}", retries=30)

    def start(self, workers: int) -> None:
        """Start the gateway, and wait until it answers; the client repeats what the gateway cannot do yet."""
        for name in ("work", "store"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        settings = {
            "AVATAR_DATABASE_URL": self.database_url,
            "AVATAR_STORE": str(self.folder / "store"),
            "AVATAR_WORK_DIR": str(self.folder / "work"),
            "AVATAR_CACHE_DIR": str(self.folder / "cache"),
            "AVATAR_TRITON_TOKEN": self.triton.token,
            "AVATAR_WORKERS": str(workers),
            "AVATAR_JOB_LEASE": "1",
        }
        arguments = ["--host", "127.0.0.1", "--port", str(self.port), "--triton", self.triton.grpc_address]
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", *arguments],
                env={**os.environ, **settings},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "gateway.log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/ping", trust_env=False).is_success
        return False

    def end(self, number: int) -> None:
        """Send a signal to the gateway, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(40)

    def files(self) -> list[str]:
        """Return what is left in the store and in the work folder."""
        folders = (self.folder / "store", self.folder / "work")
        return [str(path.relative_to(self.folder)) for each in folders for path in files_below(each)]


@contextlib.contextmanager
def running(folder: Path, triton: Triton, database_url: str) -> Iterator[Service]:
    """Start a gateway with one worker, and kill what is left of it at the end."""
    service = Service(folder, triton, database_url)
    try:
        service.start(workers=1)
        yield service
    finally:
        service.end(signal.SIGKILL)


def submit(service: Service, samples: Path, frames: int) -> str:
    speech = write_wav(service.folder / "speech.wav", tone(frames / FPS))
    return service.jobs.submit(samples / "portrait.png", speech).id


def submit_two(service: Service, samples: Path) -> tuple[str, str]:
    """Submit two jobs, and return their ids when the first one runs and the other one waits for the worker."""
    first, second = submit(service, samples, LONG), submit(service, samples, SHORT)
    wait_until(lambda: service.jobs.get(first).stage == "encode")
    assert service.jobs.get(second).state == "queued"
    return first, second


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"the condition is still false after {LIMIT:.0f} s"
        time.sleep(0.1)


def check_ends(service: Service, *expected: tuple[str, int, int]) -> None:
    """Check that each job ends once, in the right state and with the right video, and that nothing is left of it.

    `expected`: the id of a job, its frames, and how many attempts it may have.
    """
    results = []
    for identity, frames, most_attempts in expected:
        job = service.jobs.wait(identity, timeout=LIMIT)
        assert job.state == "succeeded" and job.attempts <= most_attempts, job
        video = service.folder / "video.mp4"
        service.jobs.result(identity, video)
        assert len(read_video(video)) == frames
        assert [event.state for event in service.jobs.watch(identity)].count("succeeded") == 1
        results.append(f"store/results/{identity}/{job.attempts}.mp4")
    service.end(signal.SIGTERM)
    run_sweep(service)
    assert sorted(service.files()) == sorted(results)


def run_sweep(service: Service) -> None:
    """Remove what a killed process left: `python -m jobs sweep`, which workers do by themselves, without its grace."""
    settings = {"AVATAR_DATABASE_URL": service.database_url, "AVATAR_STORE": str(service.folder / "store")}
    command = [sys.executable, "-m", "jobs", "sweep", "--grace", "0"]
    subprocess.run(command, env={**os.environ, **settings}, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_running_and_queued_jobs_survive_a_gateway_that_is_killed(
    triton: Triton, database_url: str, samples: Path, tmp_path: Path
) -> None:
    with running(tmp_path, triton, database_url) as service:
        first, second = submit_two(service, samples)
        service.end(signal.SIGKILL)
        service.start(workers=1)
        check_ends(service, (first, LONG, 2), (second, SHORT, 1))


@pytest.mark.slow
def test_running_and_queued_jobs_survive_a_database_that_is_killed(
    triton: Triton, database_folder: Path, samples: Path, tmp_path: Path
) -> None:
    with (
        Postgres(database_folder / "data", **server_options(database_folder)) as database,
        running(tmp_path, triton, database.url) as service,
    ):
        first, second = submit_two(service, samples)
        with killed(database, database_folder):
            check_ends(service, (first, LONG, 1), (second, SHORT, 1))


@contextlib.contextmanager
def killed(database: Postgres, folder: Path) -> Iterator[None]:
    """Kill a PostgreSQL, and start another one with its data."""
    os.kill(database.pid, signal.SIGKILL)
    with contextlib.suppress(Exception):
        database.stop()
    with Postgres(folder / "data", **server_options(folder)):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["gateway", "database"])
def test_a_job_that_has_ended_survives_a_process_that_is_killed(
    victim: str, triton: Triton, database_folder: Path, samples: Path, tmp_path: Path
) -> None:
    with (
        Postgres(database_folder / "data", **server_options(database_folder)) as database,
        running(tmp_path, triton, database.url) as service,
        contextlib.ExitStack() as replaced,
    ):
        identity = submit(service, samples, SHORT)
        service.jobs.wait(identity)
        if victim == "gateway":
            service.end(signal.SIGKILL)
            service.start(workers=1)
        else:
            replaced.enter_context(killed(database, database_folder))
        check_ends(service, (identity, SHORT, 1))
