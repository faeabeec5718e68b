"""A real gateway process for tests."""

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


@dataclass(frozen=True)
class Gateway:
    url: str
    work: Path  # its work folder: whatever lies under it was left behind
    log: Path

    def leftovers(self) -> list[Path]:
        """Files under the work folder, after a moment for the clean-up that follows an answer."""
        for _ in range(50):
            found = [path for path in self.work.rglob("*") if path.is_file()]
            if not found:
                return []
            time.sleep(0.1)
        return found


def absent(folder: Path, modules: Iterable[str]) -> dict[str, str]:
    """The environment of a Python for which these modules do not exist."""
    place = folder / "absent"
    place.mkdir(exist_ok=True)
    for module in modules:
        line = f'raise ModuleNotFoundError("No module named {module!r}", name={module!r})\n'
        (place / f"{module}.py").write_text(line)
    return {"PYTHONPATH": str(place)}


@contextlib.contextmanager
def gateway_process(
    folder: Path, triton: str, without: Iterable[str] = (), python: str = sys.executable
) -> Iterator[Gateway]:
    """A gateway that works below `folder`, on a machine on which the modules `without` are not installed."""
    port = Ports.free().gateway
    gateway = Gateway(f"http://127.0.0.1:{port}", folder / "work", folder / "gateway.log")
    gateway.work.mkdir()
    with gateway.log.open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "gateway", "--host", "127.0.0.1", "--port", str(port), "--triton", triton],
            env={
                **os.environ,
                "AVATAR_WORK_DIR": str(gateway.work),
                "AVATAR_CACHE_DIR": str(folder / "cache"),
                **absent(folder, without),
            },
            cwd=folder,  # with -m Python imports from there first: not this checkout, but what `python` has installed
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(300):
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{gateway.url}/ping", timeout=1).close()
                break
            assert process.poll() is None, gateway.log.read_text()
            time.sleep(0.1)
        yield gateway
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, gateway.log.read_text()
