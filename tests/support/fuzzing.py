"""Post damaged and hostile media to a real gateway, and report every response that is not as required.

The gateway runs in a separate process, on a free port of 127.0.0.1. Its models are fast fakes (`avatar.testing`), its
media code is the real one. Every response must be a video, or a 4xx that names the field and nothing internal. A file
that refers to another file must be rejected, and no file or process may be left. From the root of the project:
`.venv/bin/python -m tests.support.fuzzing --count 2000`.

Exit status: 0 no finding, 1 findings, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.support.fuzzed_files import WHOLE, Case, Extent, hostile, media, mutated  # noqa: E402 - also a script

# cases that refer to another file and must be rejected
REFERENCES = ("playlist", "concat", "address", "picture.svg", "program", "reference")
SLOW = 60.0  # seconds that a response may take on a busy machine
NAMES_A_FIELD = re.compile(r"(face_file|audio_file|background_file|avatarFileType): ")
NO_FACE = "Face not detected! Ensure the video contains a face in all the frames."
INTERNALS = re.compile(r"Traceback|/tmp/|/work|site-packages|0x[0-9a-f]{6}|@ 0x|\[[a-z0-9]+ @")

SERVER = """
import asyncio, sys
from pathlib import Path
from avatar.testing import FakeInference
from gateway import logging_config, server
from gateway.app import create_app
from gateway.settings import Settings
import uvicorn
settings = Settings(
    work_dir=Path(sys.argv[1]), log_level="warning", max_jobs=4, cache_mib=0, max_speech_seconds=int(sys.argv[2])
)
logging_config.configure(settings.log_level, settings.log_format)
listener = server.listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
app = create_app(settings, FakeInference())
uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
"""


@dataclass
class Result:
    """The result of a run."""

    posted: int = 0
    responses: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slowest_name: str = ""
    gateway_mib: int = 0
    ffmpeg_mib: int = 0


class Gateway:
    """The gateway under test, with a thread that records its peak memory."""

    def __init__(self, folder: Path, extent: Extent = WHOLE) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(self.work), str(extent.speech_seconds)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.peaks = [0, 0]
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample_memory, daemon=True)
        self._sampler.start()

    def _sample_memory(self) -> None:
        process = psutil.Process(self._process.pid)
        while not self._over.wait(0.05):
            try:
                self.peaks[0] = max(self.peaks[0], process.memory_info().rss)
                for child in process.children():
                    self.peaks[1] = max(self.peaks[1], child.memory_info().rss)
            except psutil.Error:
                continue

    def leftovers(self) -> list[str]:
        """Return the files and processes that are left while no request runs."""
        files = [str(path) for path in self.work.rglob("*") if path.parent != self.work]
        return files + [str(child) for child in psutil.Process(self._process.pid).children()]

    def close(self) -> None:
        """Stop the gateway, and wait for its end."""
        self._over.set()
        self._sampler.join()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@contextmanager
def gateway(folder: Path, extent: Extent = WHOLE) -> Iterator[Gateway]:
    """Run a gateway."""
    running = Gateway(folder, extent)
    try:
        yield running
    finally:
        running.close()


def find_problem(response: httpx.Response) -> str:
    """Return the problem of a response; an empty text if there is none."""
    if response.status_code == 200:
        return "" if response.content[4:8] == b"ftyp" else "200 without a video"
    if not 400 <= response.status_code < 500:
        return f"status {response.status_code}: {response.text[:200]}"
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError):
        return f"no detail: {response.text[:200]}"
    if detail != NO_FACE and not NAMES_A_FIELD.match(detail):
        return f"no field is named: {detail}"
    return f"shows internals: {detail}" if INTERNALS.search(detail) else ""


class _Run:
    """One run against one gateway: posts cases, some at the same time, and collects what is wrong with the answers."""

    def __init__(self, client: httpx.AsyncClient, server: Gateway, valid: dict[str, bytes], concurrent: int) -> None:
        self.result = Result()
        self._client, self._server, self._valid = client, server, valid
        self._slots = asyncio.Semaphore(concurrent)

    async def wait_started(self) -> None:
        """Wait until the gateway answers."""
        while True:
            try:
                await self._client.get(f"{self._server.url}/ping")
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)

    async def post(self, case: Case) -> str:
        """Post a case in a valid form, record the response, and return what is wrong with it."""
        async with self._slots:
            started = time.monotonic()
            try:
                problem = self._judge(case, await self._send({case.field: case.data}, case.kind))
            except httpx.HTTPError as error:
                problem = f"no response: {type(error).__name__}"
            seconds = time.monotonic() - started
        result = self.result
        if seconds > result.slowest:
            result.slowest, result.slowest_name = seconds, case.name
        result.posted += 1
        if problem:
            result.findings.append(f"{case.name} as {case.field}, {case.kind}: {problem}")
        return problem

    async def check_afterwards(self) -> None:
        """Check that no file or process is left, and that a valid form still gets its video."""
        await asyncio.sleep(0.5)
        if leftovers := self._server.leftovers():
            self.result.findings.append(f"left: {leftovers}")
        whole = await self._send({}, "png")
        if whole.status_code != 200:
            self.result.findings.append(f"a valid form gets {whole.status_code} afterwards")
        self.result.gateway_mib, self.result.ffmpeg_mib = (peak >> 20 for peak in self._server.peaks)

    async def _send(self, changed: dict[str, bytes], kind: str) -> httpx.Response:
        files = {name: ("a", data) for name, data in (self._valid | changed).items()}
        texts = {"avatarFileType": kind, "background": "From Input"}
        return await self._client.post(f"{self._server.url}/", files=files, data=texts)

    def _judge(self, case: Case, response: httpx.Response) -> str:
        problem = find_problem(response)
        if response.status_code == 200 and case.name.startswith(REFERENCES):
            problem = "the file to which it refers was read"
        detail = response.json()["detail"][:60] if response.status_code != 200 and not problem else ""
        self.result.responses[f"{response.status_code} {detail}".strip()] += 1
        return problem


async def run(
    count: int,
    seed: int,
    keep: Path | None = None,
    concurrent: int = 3,
    show_progress: bool = True,
    extent: Extent = WHOLE,
) -> Result:
    """Post `count` damaged files and all hostile ones; see the docstring of the module."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secret = folder / "secret.mp4"
        sources = media(folder)
        secret.write_bytes(sources["face.video.mp4"])
        valid = {"face_file": sources["face.png"], "audio_file": sources["speech.wav"]}
        cases = chain(hostile(sources, secret, extent), mutated(sources, count, seed))
        with gateway(folder, extent) as server:
            async with httpx.AsyncClient(timeout=SLOW) as client:
                this = _Run(client, server, valid, concurrent)
                await this.wait_started()
                while batch := list(islice(cases, 4 * concurrent)):  # a few at a time: some files are large
                    problems = await asyncio.gather(*map(this.post, batch))
                    for case, problem in zip(batch, problems, strict=True):
                        if problem and keep:
                            (keep / f"{case.name}.{case.field}.{case.kind}").write_bytes(case.data)
                    if show_progress:
                        shown = f"\r{this.result.posted} posted, {len(this.result.findings)} findings"
                        print(shown, end="", file=sys.stderr)
                await this.check_afterwards()
    return this.result


def main() -> int:
    """Run the script; see the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="damaged files (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random damage (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the files that cause findings")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        result = asyncio.run(run(options.count, options.seed, options.keep))
    except KeyboardInterrupt:
        return 130
    print(f"\n{result.posted} files in {time.monotonic() - started:.0f} s; {len(result.findings)} findings")
    print(json.dumps(dict(result.responses.most_common()), indent=2))
    print(f"slowest {result.slowest:.1f} s ({result.slowest_name}); gateway {result.gateway_mib} MiB at most, ", end="")
    print(f"an ffmpeg {result.ffmpeg_mib} MiB")
    for finding in result.findings:
        print(f"! {finding}")
    return bool(result.findings)


if __name__ == "__main__":
    sys.exit(main())
