"""A real gateway process for tests."""

import base64
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.stack import Ports
from tests.support.files import files_below

WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"0" * 32).decode()
START_SECONDS, CLEAN_UP_SECONDS, STOP_SECONDS = 180.0, 30.0, 120.0  # on a busy machine


@dataclass(frozen=True)
class Gateway:
    url: str
    work: Path  # its work folder; every file in it is a leftover
    log: Path
    pid: int

    def leftovers(self) -> list[Path]:
        """Return the files in the work folder; wait for the clean-up after a response, which a busy machine delays."""
        end = time.monotonic() + CLEAN_UP_SECONDS
        while (files := files_below(self.work)) and time.monotonic() < end:
            time.sleep(0.1)
        return files

    def wait_for_jobs(self) -> None:
        """Return when jobs can be submitted: the gateway prepares the tables of its database after its start."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v1/jobs", timeout=60).close()
                return
            except urllib.error.HTTPError as error:
                assert error.code == 503, error.read()
                assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)


def without_modules(folder: Path, modules: Iterable[str]) -> dict[str, str]:
    """Return the environment of a Python in which importing these modules fails."""
    path = folder / "absent"
    path.mkdir(exist_ok=True)
    for module in modules:
        line = f'raise ModuleNotFoundError("No module named {module!r}", name={module!r})\n'
        (path / f"{module}.py").write_text(line)
    return {"PYTHONPATH": str(path)}


@contextlib.contextmanager
def gateway_process(
    folder: Path,
    triton: str,
    without: Iterable[str] = (),
    python: str = sys.executable,
    token: str = "",
    port: str = "",
    **settings: str,
) -> Iterator[Gateway]:
    """Run a gateway with its files in `folder`, in an environment without the modules of `without`.

    `token`: what the Triton requires for shared memory; without it, frames are sent in gRPC messages.
    `port`: by default a free one.
    `settings`: more environment variables, such as `AVATAR_MAX_JOBS="1"`.
    """
    number = int(port) if port else Ports.free().gateway
    work, log_file = folder / "work", folder / "gateway.log"
    work.mkdir()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "gateway", "--host", "127.0.0.1", "--port", str(number), "--triton", triton],
            env={
                **os.environ,
                "AVATAR_WORK_DIR": str(work),
                "AVATAR_CACHE_DIR": str(folder / "cache"),
                "AVATAR_TRITON_TOKEN": token,
                **without_modules(folder, without),
                **settings,
            },
            cwd=folder,  # with -m Python imports from there first: not this checkout, but what `python` has installed
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    gateway = Gateway(f"http://127.0.0.1:{number}", work, log_file, process.pid)
    try:
        _wait_until_it_answers(gateway, process)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0, gateway.log.read_text()


@contextlib.contextmanager
def job_gateway_process(folder: Path, triton: str, token: str, database: str) -> Iterator[Gateway]:
    """Run a gateway that takes jobs in, runs them, and calls receivers of webhooks on this machine."""
    settings = {
        "AVATAR_DATABASE_URL": database,
        "AVATAR_STORE": str(folder / "store"),
        "AVATAR_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "AVATAR_URL_ALLOWED_HOSTS": "127.0.0.1:*",
        "AVATAR_URL_ALLOW_HTTP": "true",
    }
    with gateway_process(folder, triton, token=token, **settings) as running:
        running.wait_for_jobs()
        yield running


def _wait_until_it_answers(gateway: Gateway, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{gateway.url}/ping", timeout=10).close()
            return
        assert process.poll() is None, gateway.log.read_text()
        assert time.monotonic() < end, f"no answer after {START_SECONDS:.0f} s: {gateway.log.read_text()}"
        time.sleep(0.1)
