"""The compose file in use: a copy of the checkout, its services, and forms that are posted to them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .commands import Failed, attempt, require, run

GATEWAY, TRITON, EXPORT = "gateway-cpu", "triton-cpu", "export-cpu"
WORKER, POSTGRES = "worker-cpu", "postgres"
_OVERRIDE = """\
# builds reach the package registries through this machine's network; the gateway's work folder is small, so that it can
# be filled
services:
  export-cpu: {build: {network: host}}
  triton-cpu: {build: {network: host}}
  gateway-cpu: {build: {network: host}}
  worker-cpu: {build: {network: host}}
volumes:
  work: {driver: local, driver_opts: {type: tmpfs, device: tmpfs, o: "size=64m,uid=1000,gid=1000"}}
"""


@dataclass(frozen=True)
class Answer:
    """The answer to a form."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def is_video(self) -> bool:
        """Return whether it is an mp4."""
        return self.status == 200 and self.body[4:8] == b"ftyp"

    def describe(self) -> str:
        """Return a line for the report."""
        text = f"{len(self.body)} bytes" if self.status == 200 else self.body[:200].decode(errors="replace")
        return f"{self.status} after {self.seconds:.1f} s: {text}"


class Deployment:
    """The services of the CPU profile."""

    def __init__(self, checkout: Path, work: Path, port: int, torch_index: str) -> None:
        """Copy the checkout's files below `work`, as a checkout under umask 077 has them."""
        self.folder, self.port = work / "checkout", port
        self._work = work
        self.environment = {
            "GATEWAY_PORT": str(port),
            "COMPOSE_PROFILES": "cpu",
            "EXPORT_FORMAT": "onnx",
            "EXPORT_PRECISION": "fp32",
        }
        self._torch_index = torch_index
        self.files = ["docker-compose.yml", str(work / "override.yml")]
        (work / "override.yml").write_text(_OVERRIDE)
        shutil.rmtree(self.folder, ignore_errors=True)
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=checkout)
        for name in filter(None, listed.split("\0")):
            if (checkout / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.copyfile(checkout / name, self.folder / name)
                (self.folder / name).chmod(0o600)
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            folder.chmod(0o700)
        (self.folder / "weights").chmod(0o755)

    @property
    def samples(self) -> Path:
        """Return the folder with the sample portrait and speech."""
        return self.folder / "samples"

    def compose(self, *arguments: str, timeout: float = 1200.0) -> str:
        """Run `docker compose` and return its output; raises Failed if it fails."""
        return run(*self._command(*arguments), cwd=self.folder, env=self.environment, timeout=timeout)

    def try_compose(self, *arguments: str, timeout: float = 1200.0) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`, which may fail."""
        return attempt(*self._command(*arguments), cwd=self.folder, env=self.environment, timeout=timeout)

    def _command(self, *arguments: str) -> list[str]:
        return ["docker", "compose", *(word for file in self.files for word in ("-f", file)), *arguments]

    def build(self) -> None:
        """Build the three images."""
        index = ("--build-arg", f"TORCH_INDEX={self._torch_index}") if self._torch_index else ()
        self.compose("build", *index, timeout=1800)

    def up(self) -> None:
        """Start everything and wait until it is healthy; images are not built again."""
        self.compose("up", "--wait", "--no-build")

    def down(self, *flags: str) -> None:
        """Stop and remove the containers."""
        self.compose("down", "-t", "45", *flags)

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.compose("ps", "--all", "--quiet", service).split()[0]

    def inspect(self, service: str) -> dict[str, object]:
        """Return what the engine knows of a service's container."""
        found: list[dict[str, object]] = json.loads(run("docker", "inspect", self.container(service)))
        return found[0]

    def state(self, service: str) -> dict[str, object]:
        """Return the state of a service's container."""
        state = self.inspect(service)["State"]
        require(isinstance(state, dict), "a state")
        return dict(state)  # type: ignore[call-overload, no-any-return]

    def restarts(self, service: str) -> int:
        """Return how often the engine restarted a service."""
        return int(str(self.inspect(service)["RestartCount"]))

    def execute(self, service: str, *command: str, user: str = "1000") -> str:
        """Run a command in a service's container."""
        return run("docker", "exec", "--user", user, self.container(service), *command)

    def variable(self, service: str, name: str) -> str:
        """Return a variable of a service's container, of its image or of the compose file."""
        return self.execute(service, "printenv", name).strip()

    def logs(self, service: str, lines: int = 50) -> str:
        """Return the last lines of a service's log."""
        return self.compose("logs", "--no-color", "--tail", str(lines), service)

    def wait_healthy(self, service: str, seconds: float = 180.0) -> float:
        """Wait until a service is healthy; return the seconds that it took."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            state = self.state(service)
            health = state.get("Health")
            if state["Running"] and isinstance(health, dict) and health["Status"] == "healthy":
                return time.monotonic() - begin
            time.sleep(0.5)
        raise Failed(f"{service} is not healthy after {seconds:g} s:\n{self.logs(service)}")

    def wait_restarted(self, service: str, count: int, seconds: float = 60.0) -> float:
        """Wait until the engine has restarted a service more than `count` times; return the seconds."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            if self.restarts(service) > count:
                return time.monotonic() - begin
            time.sleep(0.2)
        raise Failed(f"{service} was not restarted within {seconds:g} s:\n{self.logs(service)}")

    def post(self, speech: Path | None = None, background: str = "From Input") -> Answer:
        """Post the sample portrait with a speech, from outside the containers."""
        return post(f"http://127.0.0.1:{self.port}/", self.samples / "face.png", speech or self.speech(2), background)

    def submit(self, speech: Path) -> str:
        """Send a job to /v1/jobs and return its address."""
        url = f"http://127.0.0.1:{self.port}"
        answer = post(f"{url}/v1/jobs", self.samples / "face.png", speech, "From Input")
        require(answer.status == 202 and "location" in answer.headers, f"a 202, got {answer.describe()}")
        return urllib.parse.urljoin(url, answer.headers["location"])

    def wait_job(self, job: str, seconds: float = 180.0) -> dict[str, object]:
        """Wait until a job has ended with a video, and return its description."""
        begin, last = time.monotonic(), ""
        while time.monotonic() - begin < seconds:
            answer = fetch(job)
            last = answer.body.decode(errors="replace")
            require(answer.status in (0, 200, 503), f"the job or a 503, got {answer.describe()}")
            described: dict[str, object] = json.loads(last) if answer.status == 200 else {}
            if described.get("state") == "succeeded":
                result = fetch(f"{job}/result")
                require(result.is_video(), f"a video, got {result.describe()}")
                return described
            require(described.get("state") in (None, "queued", "running"), f"a job that goes on, got {last}")
            time.sleep(0.5)
        raise Failed(f"the job has not ended after {seconds:g} s: {last}\n{self.logs(WORKER)}")

    def posting(self, speech: Path) -> PostingThread:
        """Start a form and return at once."""
        thread = PostingThread(self, speech)
        thread.start()
        return thread

    def wait_good_form(self, seconds: float = 120.0) -> float:
        """Post forms until one is a video; every other answer must be a 503. Return the seconds."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            answer = self.post()
            if answer.is_video():
                return time.monotonic() - begin
            require(answer.status == 503, f"a video or a 503, got {answer.describe()}")
            require("retry-after" in answer.headers, f"Retry-After with a 503, got {dict(answer.headers)}")
            time.sleep(0.5)
        raise Failed(f"no good form within {seconds:g} s")

    def speech(self, seconds: int) -> Path:
        """Return a recording of that length, made of the sample."""
        path = self._work / f"speech-{seconds}.wav"
        if not path.exists():
            with wave.open(str(self.samples / "speech.wav")) as source, wave.open(str(path), "wb") as target:
                target.setparams(source.getparams())
                frames = source.readframes(source.getnframes())
                size = source.getframerate() * source.getsampwidth() * source.getnchannels() * seconds
                target.writeframes((frames * (size // len(frames) + 1))[:size])
        return path


class PostingThread(threading.Thread):
    """A form under way."""

    def __init__(self, deployment: Deployment, speech: Path) -> None:
        """Prepare a form with this speech."""
        super().__init__(daemon=True)
        self._deployment, self._speech = deployment, speech
        self._answer: Answer | None = None

    def run(self) -> None:
        """Post the form."""
        self._answer = self._deployment.post(self._speech)

    def answer(self, seconds: float = 120.0) -> Answer:
        """Wait for the answer and return it."""
        self.join(seconds)
        if self._answer is None:
            raise Failed(f"no answer to a form within {seconds:g} s")
        return self._answer


def post(url: str, face: Path, speech: Path, background: str) -> Answer:
    """Post a form; an answer of any status is returned, a broken connection has the status 0."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, path in (("face_file", face), ("audio_file", speech)):
        head = f'Content-Disposition: form-data; name="{name}"; filename="{path.name}"'
        parts.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + path.read_bytes() + b"\r\n")
    for name, value in (("avatarFileType", "png"), ("background", background)):
        head = f'Content-Disposition: form-data; name="{name}"'
        parts.append(f"--{boundary}\r\n{head}\r\n\r\n{value}\r\n".encode())
    request = urllib.request.Request(url, b"".join(parts) + f"--{boundary}--\r\n".encode())  # noqa: S310 - 127.0.0.1
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    return _open(request)


def fetch(url: str) -> Answer:
    """Get a page; an answer of any status is returned, a broken connection has the status 0."""
    return _open(urllib.request.Request(url))  # noqa: S310 - 127.0.0.1


def _open(request: urllib.request.Request) -> Answer:
    begin = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as answer:
            return _answer(answer.status, dict(answer.headers), answer.read(), begin)
    except urllib.error.HTTPError as error:
        return _answer(error.code, dict(error.headers), error.read(), begin)
    except OSError as error:
        return _answer(0, {}, str(error).encode(), begin)


def _answer(status: int, headers: Mapping[str, str], body: bytes, begin: float) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body, time.monotonic() - begin)


def host_shared_memory() -> set[str]:
    """Return the names of the regions in the machine's /dev/shm that belong to a Triton in a container."""
    pattern = re.compile(r"triton_python_backend_shm_region_[0-9a-f]{16}")  # as embedded.container chooses it
    return set(filter(pattern.match, os.listdir("/dev/shm")))  # noqa: S108, PTH208
