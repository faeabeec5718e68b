"""A real worker process for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60.0  # on a busy machine


@contextmanager
def worker_process(folder: Path, settings: Mapping[str, str]) -> Iterator[Path]:
    """Run `python -m jobs worker` on a free port with its files in a new folder; yield the path of its log.

    At the end of the block it has to stop by SIGTERM with exit status 0.
    """
    work, log = folder / "work", folder / "worker.log"
    work.mkdir(parents=True)
    own = {"AVATAR_WORK_DIR": str(work), "AVATAR_CACHE_DIR": str(folder / "cache"), "AVATAR_WORKER_PORT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "worker"],
            cwd=ROOT,
            env={**os.environ, **settings, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(20)
