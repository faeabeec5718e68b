"""The commands of `python -m jobs`, as processes: a real worker with a real Triton, the tables, the sweep."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.stack import Ports
from embedded.server import Triton
from jobs.__main__ import main
from jobs.records import JobState
from tests.support.job_workers import ROOT, Queue, open_queue
from tests.support.media import frame_rate, tone, until, write_wav


@pytest.fixture
async def queue(database_url: str, tmp_path: Path) -> AsyncIterator[Queue]:
    async with open_queue(database_url, tmp_path) as opened:
        yield opened


def _run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)


@contextmanager
def _worker(queue: Queue, triton: str, token: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    log = queue.folder / "worker.log"
    assert queue.settings.database_url is not None
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "worker", "--concurrency", "1", "--host", "127.0.0.1", "--port", str(port)],
            cwd=ROOT,
            env={
                **os.environ,
                "AVATAR_DATABASE_URL": queue.settings.database_url.get_secret_value(),
                "AVATAR_STORE": queue.settings.store,
                "AVATAR_WORK_DIR": str(queue.settings.work_dir),
                "AVATAR_CACHE_DIR": str(queue.folder / "cache"),
                "AVATAR_TRITON_URL": triton,
                "AVATAR_TRITON_TOKEN": token,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def test_a_worker_renders_with_triton_and_ends_at_a_signal(queue: Queue, triton: Triton, samples: Path) -> None:
    face, speech = samples / "portrait.png", write_wav(queue.folder / "speech.wav", tone(0.2))
    job = await queue.submit(face.read_bytes(), speech.read_bytes(), request_id="the-request")
    port = Ports.free().gateway
    with _worker(queue, triton.grpc_address, triton.token, port) as process:
        ended = await queue.reaches(job, seconds=60)
        assert ended.state is JobState.SUCCEEDED, (ended.error, (queue.folder / "worker.log").read_text())
        await until(lambda: "avatar_frames_total 5.0" in _get(port, "/metrics")[1])  # counted after the job has ended
        await until(lambda: 'avatar_worker_jobs_total{outcome="succeeded"} 1.0' in _get(port, "/metrics")[1])
        assert await asyncio.to_thread(_get, port, "/health") == (200, '{"status": "ok", "faults": {}}')
        assert (await asyncio.to_thread(_get, port, "/"))[0] == 404
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert f"[{job.request_id}]" in (queue.folder / "worker.log").read_text()
    (queue.folder / "video.mp4").write_bytes(await queue.video(job))
    assert frame_rate(queue.folder / "video.mp4") == 25
    assert not list(queue.settings.work_dir.iterdir())


async def test_a_worker_that_waits_for_its_tables_ends_at_a_signal(empty_database: str, tmp_path: Path) -> None:
    async with open_queue(empty_database, tmp_path) as queue:
        with _worker(queue, "127.0.0.1:1", "", 0) as process:
            log = queue.folder / "worker.log"
            await until(lambda: "waiting for the database: the database has no tables yet" in log.read_text())
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0


def test_the_tables_are_created_once(empty_database: str) -> None:
    first = _run("migrate", AVATAR_DATABASE_URL=empty_database)
    assert first.returncode == 0 and first.stdout.startswith("applied 0001_jobs.sql\n"), first.stderr
    again = _run("migrate", AVATAR_DATABASE_URL=empty_database)
    assert (again.returncode, again.stdout) == (0, "the database is up to date\n")


async def test_the_sweep_says_what_it_removed(queue: Queue) -> None:
    job = await queue.submit()
    await queue.database.fetch("DELETE FROM jobs WHERE id = %s RETURNING 1", job.id)
    assert queue.settings.database_url is not None
    swept = await asyncio.to_thread(
        _run,
        "sweep",
        "--grace",
        "0",
        AVATAR_DATABASE_URL=queue.settings.database_url.get_secret_value(),
        AVATAR_STORE=queue.settings.store,
    )
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout == "removed 0 results, 0 records of jobs, 0 kept faces, and 2 files that no job needs\n"
    assert await queue.files() == []


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "text"),
    [
        (("migrate",), {"AVATAR_DATABASE_URL": ""}, 2, "AVATAR_DATABASE_URL: no database is given"),
        (("worker", "--concurrency", "0"), {"AVATAR_DATABASE_URL": "postgresql://x/x"}, 2, "AVATAR_WORKER_JOBS: "),
        (("sweep", "--grace", "-1"), {}, 2, "'-1' is no number of hours"),
        (("sweep",), {"AVATAR_DATABASE_URL": "postgresql://x/x", "AVATAR_STORE": "ftp://x"}, 2, "AVATAR_STORE: "),
        ((), {}, 2, "required: COMMAND"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    environment: dict[str, str],
    status: int,
    text: str,
) -> None:
    monkeypatch.setattr("jobs.logging_config.configure", lambda *_: None)  # pytest has the log
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _status(arguments) == status
    assert text in capsys.readouterr().err


def _status(arguments: tuple[str, ...]) -> int:
    """Return the exit status of a command that runs in this process."""
    try:
        return main(arguments)
    except SystemExit as end:  # of wrong usage
        return int(end.code or 0)
