"""A machine that fails under the whole service: callers get 503 and may retry, and the service heals by itself."""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from embedded.server import Triton
from tests.support.fake_ffmpeg import FakeFfmpeg, write_fake_ffmpeg
from tests.support.gateway_process import Gateway, gateway_process

Media = Callable[..., Path]
# Arguments that only one of the service's runs of ffmpeg has
RUNS = {
    "decoder of the audio": "f32le",
    "probe of the video": "showinfo",
    "list of packets": "0:V:0 -c copy",
    "decoder of the video": "rawvideo -pix_fmt bgr24 pipe:1",
    "encoder": "-i pipe:0",
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeFfmpeg:
    return write_fake_ffmpeg(tmp_path_factory.mktemp("fake") / "bin")


@pytest.fixture(scope="module")
def gateway(triton: Triton, fake: FakeFfmpeg, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose ffmpeg can be made to fail."""
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_process(folder, triton.grpc_address, PATH=fake.path, AVATAR_CACHE_MIB="0") as running:
        yield running


@pytest.fixture(scope="module")
def face(samples: Path, media: Media) -> Path:
    """A video of a face."""
    return media(
        "face.mp4", "-loop", "1", "-i", str(samples / "face.png"), "-t", "0.4", "-r", "25", "-pix_fmt", "yuv420p"
    )


@pytest.fixture(scope="module")
def speech(samples: Path, media: Media) -> Path:
    """Speech that ffmpeg decodes: plain WAV would be read without."""
    return media("speech.flac", "-i", str(samples / "speech.wav"), "-t", "0.4")


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as client:
        yield client


class Forms:
    """Posts one form again and again."""

    def __init__(self, client: httpx.Client, face: Path, speech: Path) -> None:
        self._client = client
        self._files = {"face_file": face.read_bytes(), "audio_file": speech.read_bytes()}

    def post(self) -> httpx.Response:
        files = {name: (name, content) for name, content in self._files.items()}
        return self._client.post("/", files=files, data={"avatarFileType": "mp4", "background": "From Input"})

    def succeeds(self) -> bool:
        response = self.post()
        return response.status_code == 200 and response.content[4:8] == b"ftyp"

    def fault(self) -> str:
        """Return the reason of a 503."""
        response = self.post()
        assert response.status_code == 503, response.text
        assert int(response.headers["retry-after"]) > 0
        found = re.fullmatch("the service has a fault: (.*); try again later", response.json()["detail"])
        assert found, response.text
        return found[1]

    def wait_until_healed(self) -> None:
        end = time.monotonic() + 60
        while not self.succeeds():
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.fixture
def forms(client: httpx.Client, face: Path, speech: Path) -> Forms:
    return Forms(client, face, speech)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# one that hangs is waited for: 20 s; tests/avatar/media has it with shorter limits
@pytest.mark.parametrize(
    "fault", ["killed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("unlinked", "mute", "hung"))]
)
def test_an_ffmpeg_that_always_fails_is_a_503_until_it_works_again(
    gateway: Gateway, client: httpx.Client, fake: FakeFfmpeg, forms: Forms, fault: str
) -> None:
    fake.fail(fault)
    try:
        reason = forms.fault()
        assert "ffmpeg" in reason
        assert reason in gateway.log.read_text()
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "ffmpeg" in ready.json()["detail"]
        assert int(ready.headers["retry-after"]) > 0
        assert client.get("/health/live").status_code == 200
    finally:
        fake.work()
    forms.wait_until_healed()
    health = client.get("/health/ready")
    assert health.status_code == 200
    assert "ffmpeg" in health.json()["last_fault"]
    assert gateway.leftovers() == []
    assert children(gateway.pid) == []


@pytest.mark.parametrize("run", RUNS)
def test_one_killed_ffmpeg_costs_one_form(
    gateway: Gateway, client: httpx.Client, fake: FakeFfmpeg, forms: Forms, run: str
) -> None:
    fake.fail("killed", RUNS[run], times=1)
    assert forms.fault() == "ffmpeg was killed"
    assert client.get("/health/ready").json()["last_fault"] == "ffmpeg was killed"
    assert forms.succeeds()
    assert gateway.leftovers() == []


def test_a_damaged_file_is_still_the_callers_fault(
    client: httpx.Client, fake: FakeFfmpeg, face: Path, speech: Path, tmp_path: Path
) -> None:
    fake.work()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(os.urandom(5000))
    for files, field in (((damaged, speech), "face_file"), ((face, damaged), "audio_file")):
        response = Forms(client, *files).post()
        assert response.status_code == 400
        assert response.json()["detail"].startswith(f"{field}: ")


def test_a_removed_ffmpeg_costs_one_form_where_another_is_installed(
    triton: Triton, face: Path, speech: Path, tmp_path: Path
) -> None:
    fake = write_fake_ffmpeg(tmp_path / "bin")
    with (
        gateway_process(tmp_path, triton.grpc_address, PATH=fake.path) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as client,
    ):
        forms = Forms(client, face, speech)
        assert forms.succeeds()
        fake.program.unlink()
        assert forms.fault() == "ffmpeg cannot be started (No such file or directory)"
        assert forms.succeeds()


def test_the_gateway_does_not_start_without_a_working_ffmpeg(tmp_path: Path) -> None:
    fake = write_fake_ffmpeg(tmp_path / "bin")
    fake.fail("mute")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--host", "127.0.0.1", "--port", "0"],
        env={**os.environ, "PATH": fake.path, "AVATAR_WORK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("python -m gateway: cannot start: ffmpeg ")


@contextmanager
def limited(pid: int, which: int, soft: int) -> Iterator[None]:
    """Lower a limit of a running process, and raise it again."""
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, which, before)


def wait_until_descriptors_are_closed(pid: int) -> None:
    """Wait until their number has not changed for a second: a busy service closes the last ones of a job late."""
    unchanged, before = 0, -1
    while unchanged < 10:
        time.sleep(0.1)
        now = psutil.Process(pid).num_fds()
        unchanged, before = unchanged + 1 if now == before else 0, now


def test_no_more_descriptors_are_a_503_until_there_are(gateway: Gateway, client: httpx.Client, forms: Forms) -> None:
    assert forms.succeeds()
    assert gateway.leftovers() == []
    wait_until_descriptors_are_closed(gateway.pid)
    lowest_free = next(n for n in range(10_000) if not Path(f"/proc/{gateway.pid}/fd/{n}").exists())
    with limited(gateway.pid, resource.RLIMIT_NOFILE, lowest_free):
        assert forms.fault() == "too many open files in the process"
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "too many open files" in ready.json()["detail"]
    assert "Too many open files" in gateway.log.read_text()
    assert forms.succeeds()
    assert client.get("/health/ready").json()["last_fault"] == "too many open files in the process"
    assert gateway.leftovers() == []


# A limit of the file size stands in for a full disk: every user may set it, and it fails in the same calls.
def test_a_disk_that_takes_no_more_is_a_503_until_it_does(
    gateway: Gateway, client: httpx.Client, forms: Forms, face: Path, speech: Path
) -> None:
    reason = "a file reached the file size limit of the process"
    assert forms.succeeds()
    with limited(gateway.pid, resource.RLIMIT_FSIZE, 1000):
        assert forms.fault() == reason  # while the upload is written
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert reason in ready.json()["detail"]
    largest_upload = max(face.stat().st_size, speech.stat().st_size)
    with limited(gateway.pid, resource.RLIMIT_FSIZE, largest_upload + 100):
        assert forms.fault() == reason  # while ffmpeg writes the decoded audio
    assert forms.succeeds()
    assert client.get("/health/ready").json()["last_fault"] == reason
    assert gateway.leftovers() == []


@pytest.mark.parametrize("removed", ["the folder of the process", "the configured folder"])
def test_a_removed_work_folder_costs_no_form(
    gateway: Gateway, client: httpx.Client, forms: Forms, removed: str
) -> None:
    assert forms.succeeds()
    for folder in [gateway.work] if removed == "the configured folder" else list(gateway.work.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)  # the service may be removing the folder of the last form
    assert forms.succeeds()
    assert client.get("/health/ready").status_code == 200
    assert gateway.leftovers() == []
