"""Trials of the jobs of /v1: PostgreSQL, the workers, and what happens when one of them is killed."""

from __future__ import annotations

import time

from .commands import attempt, require, run
from .deployment import GATEWAY, POSTGRES, WORKER, Deployment, fetch

_KILL_WORKER = """\
for process in /proc/[0-9]*; do
    tr '\\0' ' ' < $process/cmdline | grep -q '^python -m jobs' && kill -9 ${process#/proc/}
done; true"""
_KILL_POSTMASTER = 'kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")"'


def the_database_has_no_network_and_no_root(deployment: Deployment) -> str:
    """PostgreSQL runs without a network, root or capabilities; others cannot reach its socket."""
    output = deployment.execute(
        POSTGRES, "sh", "-c", "id -u; grep CapEff /proc/self/status; ls /sys/class/net", user="999"
    )
    require(output.split() == ["999", "CapEff:", "0000000000000000", "lo"], f"user 999 with `lo` only, got {output}")
    image = "talking-avatar/gateway:0.1.0"
    done = attempt("docker", "run", "--rm", "--network", "talking-avatar_default", image, "ls", "/run/postgresql")
    require(done.returncode != 0, f"no socket without the volume, got {done.stdout}")
    return "user 999, no capabilities, no network but lo"


def a_job_is_run_by_the_worker(deployment: Deployment) -> str:
    """A job of /v1 is a video; the gateway runs none of them itself."""
    begin = time.monotonic()
    deployment.wait_job(deployment.submit(deployment.speech(2)))
    return f"video after {time.monotonic() - begin:.1f} s"


def a_killed_worker_loses_no_job(deployment: Deployment) -> str:
    """The worker is killed in the middle of a job; the next one does it again."""
    job = deployment.submit(deployment.speech(30))
    _wait_running(deployment, job)
    count, begin = deployment.restarts(WORKER), time.monotonic()
    attempt("docker", "exec", deployment.container(WORKER), "sh", "-c", _KILL_WORKER)
    deployment.wait_restarted(WORKER, count)
    described = deployment.wait_job(job)
    require(described["attempts"] == 2, f"two attempts, got {described}")
    return f"video {time.monotonic() - begin:.0f} s after the kill, in the second attempt"


def a_killed_database_loses_no_job(deployment: Deployment) -> str:
    """PostgreSQL is killed while jobs wait and one runs; all of them end with a video."""
    jobs = [deployment.submit(deployment.speech(10)) for _ in range(3)]
    count, begin = deployment.restarts(POSTGRES), time.monotonic()
    attempt("docker", "exec", "--user", "999", deployment.container(POSTGRES), "sh", "-c", _KILL_POSTMASTER)
    deployment.wait_restarted(POSTGRES, count)
    healthy = deployment.wait_healthy(POSTGRES)
    for job in jobs:
        deployment.wait_job(job)
    deployment.wait_healthy(GATEWAY)
    deployment.wait_healthy(WORKER)
    return f"healthy {healthy:.0f} s after its restart; 3 of 3 videos {time.monotonic() - begin:.0f} s after the kill"


def a_dump_can_be_made_while_jobs_run(deployment: Deployment) -> str:
    """`pg_dump` in the container, as docs/operations/database.md has it."""
    dump = run(
        "docker", "exec", deployment.container(POSTGRES), "sh", "-c", "pg_dump -U avatar avatar -h /run/postgresql"
    )
    require("CREATE TABLE avatar.jobs" in dump, f"the tables in the dump, got {dump[:200]}")
    return f"{len(dump)} bytes"


def _wait_running(deployment: Deployment, job: str) -> None:
    deadline = time.monotonic() + 60
    while b'"running"' not in fetch(job).body:
        require(time.monotonic() < deadline, f"the job runs\n{deployment.logs(WORKER)}")
        time.sleep(0.2)
