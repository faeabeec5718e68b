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
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from numpy.random import RandomState
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from avatar.media.ffmpeg import executable  # noqa: E402 - this file is also a script

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


@dataclass(frozen=True)
class Extent:
    """How much the costly files cost: speech up to the limit of the gateway is decoded, and every frame of a GIF.

    Attributes:
        speech_seconds: longest speech that the gateway accepts.
        gif_frames: frames of the GIF with many.
    """

    speech_seconds: int = 3600
    gif_frames: int = 1_000_000


WHOLE, SHORT = Extent(), Extent(speech_seconds=120, gif_frames=100_000)


@dataclass(frozen=True)
class Case:
    """One file to post as the face or as the speech."""

    name: str
    data: bytes
    field: str  # face_file or audio_file
    kind: str  # avatarFileType


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


def media(folder: Path) -> dict[str, bytes]:
    """Return small valid files of every format, by name."""
    files: dict[str, bytes] = {}
    image = Image.effect_mandelbrot((96, 72), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        image.save(folder / "a", kind)
        files[f"face.{kind.lower()}"] = (folder / "a").read_bytes()
    image.convert("CMYK").save(folder / "a", "JPEG")
    files["face.cmyk.jpeg"] = (folder / "a").read_bytes()
    image.quantize(16).save(folder / "a", "PNG", transparency=3)
    files["face.palette.png"] = (folder / "a").read_bytes()
    files["face.heic"] = (ROOT / "tests" / "avatar" / "samples" / "square.heic").read_bytes()
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x72:r=25:d=0.4"]
    for name, codec in (
        ("mp4", ["-c:v", "libx264", "-pix_fmt", "yuv420p"]),
        ("mov", ["-c:v", "mpeg4"]),
        ("mkv", ["-c:v", "libx264", "-pix_fmt", "yuv444p10le"]),
        ("webm", ["-c:v", "libvpx", "-deadline", "realtime"]),
        ("avi", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
        ("ts", ["-c:v", "mpeg2video"]),
        ("gif", []),
    ):
        files[f"face.video.{name}"] = _ffmpeg(folder, f"a.{name}", *source, *codec)
    sound = ["-f", "lavfi", "-i", "sine=220:d=0.4"]
    for name, codec in (
        ("wav", []),
        ("float.wav", ["-c:a", "pcm_f32le"]),
        ("u8.wav", ["-c:a", "pcm_u8"]),
        ("mp3", []),
        ("m4a", []),
        ("ogg", []),
        ("opus", []),
        ("flac", []),
        ("webm", []),
        ("aiff", []),
    ):
        files[f"speech.{name}"] = _ffmpeg(folder, f"a.{name}", *sound, *codec)
    files["speech.mp4"] = _ffmpeg(folder, "a.mp4", *source, *sound, "-shortest")
    return files


def _ffmpeg(folder: Path, name: str, *args: str) -> bytes:
    command = [executable(), "-v", "error", *args, "-y", str(folder / name)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return (folder / name).read_bytes()


def _flip(data: bytearray, rng: RandomState) -> bytearray:
    for at in rng.randint(0, len(data), rng.choice([1, 3, 20, 200])):
        data[at] ^= 1 << rng.randint(8)
    return data


def _flip_head(data: bytearray, rng: RandomState) -> bytearray:
    for at in rng.randint(0, min(128, len(data)), rng.randint(1, 6)):
        data[at] = rng.randint(256)
    return data


def _cut(data: bytearray, rng: RandomState) -> bytearray:
    return data[: rng.randint(1, len(data))]


def _zero(data: bytearray, rng: RandomState) -> bytearray:
    at, size = rng.randint(len(data)), rng.randint(1, 400)
    data[at : at + size] = bytes(len(data[at : at + size]))
    return data


def _repeat(data: bytearray, rng: RandomState) -> bytearray:
    at, size = rng.randint(len(data)), rng.randint(1, 400)
    return data[: at + size] + data[at : at + size] * rng.randint(1, 50) + data[at + size :]


def _swap(data: bytearray, rng: RandomState) -> bytearray:
    one, other = sorted(rng.randint(0, len(data), 2))
    return data[other:] + data[one:other] + data[:one]


def _insert(data: bytearray, rng: RandomState) -> bytearray:
    at = rng.randint(len(data))
    return data[:at] + bytearray(rng.bytes(rng.randint(1, 300))) + data[at:]


def _set_extreme_number(data: bytearray, rng: RandomState) -> bytearray:
    """Replace four bytes, in the header or anywhere, by an extreme number."""
    at = rng.randint(max(1, (min(600, len(data)) if rng.randint(2) else len(data)) - 4))
    value = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    data[at : at + 4] = struct.pack(rng.choice([">I", "<I"]), value)
    return data


MUTATORS: tuple[Callable[[bytearray, RandomState], bytearray], ...] = (
    *(_flip, _flip_head, _cut, _zero, _repeat, _swap, _insert, _set_extreme_number),
)


def mutated(sources: dict[str, bytes], count: int, seed: int) -> Iterator[Case]:
    """Yield damaged files, which are the same for the same seed."""
    names = sorted(sources)
    for number in range(count):
        rng = RandomState([seed, number])
        name = names[rng.randint(len(names))]
        data = bytearray(sources[name])
        words = []
        for _ in range(rng.randint(1, 3)):
            mutator = MUTATORS[rng.randint(len(MUTATORS))]
            data = mutator(data, rng) or bytearray(b"\0")
            words.append(mutator.__name__.strip("_"))
        if rng.randint(20) == 0:
            data += sources[names[rng.randint(len(names))]]
            words.append("splice")
        where = "audio_file" if name.startswith("speech") else "face_file"
        if rng.randint(12) == 0:  # a valid kind of file in the wrong field
            where = "face_file" if where == "audio_file" else "audio_file"
        kind = "png" if rng.randint(2) else "mp4"
        yield Case(f"{number}-{name}-{'-'.join(words)}", bytes(data), where, kind)


def hostile(sources: dict[str, bytes], secret: Path, extent: Extent = WHOLE) -> Iterator[Case]:
    """Yield files that an attacker could construct."""

    def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
        head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        parts = [head, *chunks, (b"IDAT", zlib.compress(bytes(9999))), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )

    bomb = zlib.compress(bytes(200_000_000), 9)
    frame = b"\x21\xf9\x04\0\1\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    gif = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff" + frame * extent.gif_frames + b";"
    mp3 = sources["speech.mp3"]
    start = mp3.index(b"\xff\xfb") if b"\xff\xfb" in mp3 else 0
    silent = (b"\xff\xfb\x10\xc4" + bytes(100)) * 250_000  # frames of 104 bytes and 26 ms
    faces: dict[str, bytes] = {
        "bomb-60000.png": png(60_000, 60_000),
        "bomb-9999.png": png(9_999, 9_999),
        "bomb-iccp.png": png(64, 64, (b"iCCP", b"x\0\0" + bomb)),
        "bomb-text.png": png(64, 64, (b"zTXt", b"x\0\0" + bomb)),
        "many-frames.gif": gif,
        "lying.webp": b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0\xff\xff\xff\xff\xff\xff" + bytes(50),
        "lying.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 2**30, 1, 24, *[0] * 6),
        "zeros": bytes(100_000),
        "one-byte": b"\xff",
        "playlist.m3u8": f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n".encode(),
        "concat.txt": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "address.sdp": b"v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "picture.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>'.encode(),
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "reference.mov": struct.pack(">I4s", 60, b"moov")
        + struct.pack(">I4s", 52, b"rmra")
        + str(secret).encode()[:44],
    }
    for name, data in faces.items():
        for kind in ("png", "mp4"):
            yield Case(name, data, "face_file", kind)
    sounds: dict[str, bytes] = {
        "hours-of-silence.mp3": mp3[start : start + 417] + silent,
        "four-gigabytes.wav": b"RIFF\xff\xff\xff\xffWAVEfmt "
        + sources["speech.wav"][16:36]
        + b"data\xff\xff\xff\xff\0\0",
        "one-hertz.wav": sources["speech.wav"].replace(struct.pack("<I", 44100), struct.pack("<I", 1)),
        "playlist.m3u8": faces["playlist.m3u8"],
        "concat.txt": faces["concat.txt"],
        "zeros": bytes(100_000),
    }
    for name, data in sounds.items():
        yield Case(name, data, "audio_file", "png")


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


async def run(
    count: int,
    seed: int,
    keep: Path | None = None,
    concurrent: int = 3,
    show_progress: bool = True,
    extent: Extent = WHOLE,
) -> Result:
    """Post `count` damaged files and all hostile ones; see the docstring of the module."""
    result = Result()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secret = folder / "secret.mp4"
        sources = media(folder)
        secret.write_bytes(sources["face.video.mp4"])
        valid_files = {"face_file": sources["face.png"], "audio_file": sources["speech.wav"]}
        with gateway(folder, extent) as server:
            async with httpx.AsyncClient(timeout=SLOW) as client:
                while True:
                    try:
                        await client.get(f"{server.url}/ping")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
                slots = asyncio.Semaphore(concurrent)

                async def post(case: Case) -> None:
                    files = {field: ("a", data) for field, data in valid_files.items()} | {case.field: ("a", case.data)}
                    texts = {"avatarFileType": case.kind, "background": "From Input"}
                    started = time.monotonic()
                    async with slots:
                        started = time.monotonic()
                        try:
                            response = await client.post(f"{server.url}/", files=files, data=texts)
                            problem = find_problem(response)
                            if response.status_code == 200 and case.name.startswith(REFERENCES):
                                problem = "the file to which it refers was read"
                            detail = (
                                response.json()["detail"][:60] if response.status_code != 200 and not problem else ""
                            )
                            result.responses[f"{response.status_code} {detail}".strip()] += 1
                        except httpx.HTTPError as error:
                            problem = f"no response: {type(error).__name__}"
                    seconds = time.monotonic() - started
                    if seconds > result.slowest:
                        result.slowest, result.slowest_name = seconds, case.name
                    result.posted += 1
                    if problem:
                        result.findings.append(f"{case.name} as {case.field}, {case.kind}: {problem}")
                        if keep:
                            (keep / f"{case.name}.{case.field}.{case.kind}").write_bytes(case.data)
                    if show_progress and result.posted % 50 == 0:
                        print(f"\r{result.posted} posted, {len(result.findings)} findings", end="", file=sys.stderr)

                batch: list[Case] = []
                for cases in (hostile(sources, secret, extent), mutated(sources, count, seed)):
                    for case in cases:
                        batch.append(case)
                        if len(batch) == 4 * concurrent:
                            await asyncio.gather(*map(post, batch))
                            batch.clear()
                await asyncio.gather(*map(post, batch))
                await asyncio.sleep(0.5)
                if leftovers := server.leftovers():
                    result.findings.append(f"left: {leftovers}")
                whole = await client.post(
                    f"{server.url}/",
                    files={field: ("a", data) for field, data in valid_files.items()},
                    data={"avatarFileType": "png", "background": "From Input"},
                )
                if whole.status_code != 200:
                    result.findings.append(f"a valid form gets {whole.status_code} afterwards")
            result.gateway_mib, result.ffmpeg_mib = server.peaks[0] >> 20, server.peaks[1] >> 20
    return result


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
