"""How many files the gateway may open: the limit is raised, its settings are lowered, or it does not start."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from gateway.descriptors import fit, needed
from gateway.settings import Settings

SMALL = Settings(max_jobs=2, max_queued=32, max_connections=100)


def test_jobs_places_and_connections_count() -> None:
    assert needed(SMALL) > 2 * 10 + 34 + 100
    for more in ({"max_jobs": 3}, {"max_queued": 33}, {"max_connections": 101}):
        assert needed(SMALL.model_copy(update=more)) > needed(SMALL)


def test_a_sufficient_limit_changes_nothing() -> None:
    assert fit(SMALL) == SMALL


def run(ulimit: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that may open only so many files."""
    command = f'ulimit {ulimit} && exec {shlex.quote(sys.executable)} -c "$0"'
    return subprocess.run(["sh", "-c", command, code], capture_output=True, text=True, timeout=60)


FIT = """
import resource
from gateway.descriptors import fit
from gateway.settings import Settings
fitted = fit(Settings(max_jobs=2, max_queued=32, max_connections=100))
print(fitted.max_connections, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_low_soft_limit_is_raised_as_far_as_needed() -> None:
    done = run("-Sn 300", FIT)
    connections, soft, _ = done.stdout.split()
    assert (connections, int(soft)) == ("100", needed(SMALL))


def test_a_low_hard_limit_means_fewer_connections() -> None:
    done = run("-n 400", FIT)
    assert done.stdout == "60 400 400\n"
    assert "at most 60 connections instead of AVATAR_MAX_CONNECTIONS=100" in done.stderr


def test_the_gateway_does_not_start_with_too_few(tmp_path: Path) -> None:
    command = f"ulimit -n 64 && exec {shlex.quote(sys.executable)} -m gateway --port 0 --host 127.0.0.1"
    environment = {**os.environ, "AVATAR_WORK_DIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(
        r"python -m gateway: this process may open 64 files, but needs \d+ for AVATAR_MAX_JOBS=\d+ and "
        r"AVATAR_MAX_QUEUED=\d+: raise the limit \(ulimit -n \d+\), or lower these settings\n",
        done.stderr,
    )
