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

import pytest

from avatar_client import AvatarJobs
from demo.stack import Ports
from embedded.postgres import Postgres
from embedded.server import Triton
from tests.support.files import files_below
from tests.support.media import read_video, tone, write_wav
from tests.support.postgres import server_options

ROOT = Path(__file__).parents[2]
STATES = ("queued", "running", pytest.param("succeeded", marks=pytest.mark.slow))
SECONDS = 6.0  # of speech: long enough to be killed in the middle
FRAMES = 150


@dataclass
class Service:
    """A gateway whose jobs survive it: it is started again with the same database, store and work folder."""

    folder: Path
    triton: Triton
    database: Postgres
    port: int = field(default_factory=lambda: Ports.free().gateway)
    process: subprocess.Popen[bytes] | None = None

    @property
    def jobs(self) -> AvatarJobs:
        return AvatarJobs(f"http://127.0.0.1:{self.port}", retries=30)

    def start(self, workers: int) -> None:
        """Start the gateway, without waiting for it: the client repeats what is not answered."""
        for name in ("work", "store"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        settings = {
            "AVATAR_DATABASE_URL": self.database.url,
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

    def end(self, number: int) -> None:
        """Send a signal to the gateway, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(40)

    def files(self) -> list[str]:
        """Return what is left in the store and in the work folder."""
        folders = (self.folder / "store", self.folder / "work")
        return [str(path.relative_to(self.folder)) for each in folders for path in files_below(each)]


@pytest.fixture
def service(tmp_path: Path, triton: Triton, database_folder: Path) -> Iterator[Service]:
    with Postgres(database_folder / "data", **server_options(database_folder)) as server:
        found = Service(tmp_path, triton, server)
        try:
            yield found
        finally:
            found.end(signal.SIGKILL)


def submit_until(service: Service, state: str, samples: Path) -> str:
    """Submit a job, and return its id when it is in this state; a queued one has no worker."""
    service.start(workers=0 if state == "queued" else 1)
    speech = write_wav(service.folder / "speech.wav", tone(SECONDS))
    job = service.jobs.submit(samples / "portrait.png", speech)
    if state == "running":
        wait_until(lambda: service.jobs.get(job.id).stage == "encode")
    elif state == "succeeded":
        service.jobs.wait(job.id)
    assert service.jobs.get(job.id).state == state
    return job.id


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("the condition is still false after 30 s")


def check_end(service: Service, identity: str, most_attempts: int) -> None:
    """Check that the job ends once, in the right state and with the right video, and that nothing is left of it."""
    job = service.jobs.wait(identity, timeout=60)
    assert job.state == "succeeded" and job.attempts <= most_attempts, job
    video = service.folder / "video.mp4"
    service.jobs.result(identity, video)
    assert len(read_video(video)) == FRAMES
    assert [event.state for event in service.jobs.watch(identity)].count("succeeded") == 1
    service.end(signal.SIGTERM)
    run_sweep(service)
    assert service.files() == [f"store/results/{identity}/{job.attempts}.mp4"]


def run_sweep(service: Service) -> None:
    """Remove what a killed process left: `python -m jobs sweep`, which workers do by themselves, without its grace."""
    settings = {"AVATAR_DATABASE_URL": service.database.url, "AVATAR_STORE": str(service.folder / "store")}
    command = [sys.executable, "-m", "jobs", "sweep", "--grace", "0"]
    subprocess.run(command, env={**os.environ, **settings}, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("state", STATES)
def test_a_job_survives_a_gateway_that_is_killed(state: str, service: Service, samples: Path) -> None:
    identity = submit_until(service, state, samples)
    service.end(signal.SIGKILL)
    service.start(workers=1)
    check_end(service, identity, most_attempts=2 if state == "running" else 1)


@pytest.mark.parametrize("state", STATES)
def test_a_job_survives_a_database_that_is_killed(
    state: str, service: Service, samples: Path, database_folder: Path
) -> None:
    identity = submit_until(service, state, samples)
    os.kill(service.database.pid, signal.SIGKILL)
    with contextlib.suppress(Exception):
        service.database.stop()
    with Postgres(database_folder / "data", **server_options(database_folder)):
        if state == "queued":
            service.end(signal.SIGTERM)
            service.start(workers=1)
        check_end(service, identity, most_attempts=1)
