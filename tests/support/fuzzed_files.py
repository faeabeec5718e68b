"""The files of `tests.support.fuzzing`: valid media of every format, damaged media, and what an attacker could make."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from numpy.random import RandomState
from PIL import Image

from avatar.media.ffmpeg import executable

ROOT = Path(__file__).parents[2]


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
