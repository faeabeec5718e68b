"""Files of every format, over HTTP: each result has the right size, frame rate, length, audio, and a moving mouth.

Only the networks are fake: they darken the mouth where the speech is loud.
"""

import io
from collections.abc import Awaitable, Callable, Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image

from avatar.pipeline import render
from avatar.testing import FakeInference
from tests.support.gateway_fakes import Serve
from tests.support.media import RATE, Frames, ffmpeg, frame_rate, read_sound, read_video, write_wav

BRIGHT = (60, 200, 230)  # BGR; bright enough to see the mouth darken
# silence, then noise, which is loud in every band
NOISE = np.random.RandomState(0).normal(0, 0.25, RATE * 6 // 10).clip(-1, 1)
SPEECH = np.concatenate((np.zeros(RATE // 5), NOISE)).astype(np.float32)
Post = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def post(serve: Serve) -> Post:
    async def posting(face: Path, speech: Path, extension: str, **options: str) -> httpx.Response:
        files = {"face_file": ("face", read_bytes(face)), "audio_file": ("speech", read_bytes(speech))}
        texts = {"avatarFileType": extension, "background": "From Input"} | options
        parts = files | {name: (None, value) for name, value in texts.items()}
        async with serve(FakeInference(darken=True), job=render) as client:
            return await client.post("/", files=parts)

    return posting


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


def check(response: httpx.Response, folder: Path, size: tuple[int, int], fps: Fraction, seconds: float) -> Frames:
    """Assert the size (width, height), frame rate, duration, audio, and that the mouth moves.

    The face of `FakeInference` is the middle of the image.
    """
    assert response.status_code == 200, response.text
    path = folder / "result.mp4"
    path.write_bytes(response.content)
    frames = read_video(path)
    assert frames.shape[2:0:-1] == size
    assert frame_rate(path) == pytest.approx(float(fps))
    assert abs(len(frames) - seconds * fps) <= 1
    assert int(response.headers["x-avatar-frames"]) == len(frames)
    samples = read_sound(path)
    assert abs(len(samples) / RATE - seconds) < 0.15
    assert np.abs(samples).max() > 0.1
    height, width = frames.shape[1:3]
    mouth = frames[:, height * 6 // 10 : height * 7 // 10, width * 4 // 10 : width * 6 // 10]
    brightness = mouth.mean(axis=(1, 2, 3))
    assert brightness.max() - brightness.min() > 8  # the mouth moves
    return frames


def painted(width: int = 160, height: int = 120) -> Image.Image:
    pixels = np.full((height, width, 3), BRIGHT[::-1], np.uint8)
    pixels[: height // 8] = (20, 90, 20)
    return Image.fromarray(pixels)


def save(kind: str, mode: str = "RGB", size: tuple[int, int] = (160, 120), **options: object) -> bytes:
    data = io.BytesIO()
    painted(*size).convert(mode).save(data, kind, **options)
    return data.getvalue()


def sixteen_bit_image() -> bytes:
    return cv2.imencode(".png", np.asarray(painted())[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()


def sixteen_bit_gray_image() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.asarray(painted().convert("L")).astype(np.uint16) * 257).save(data, "PNG")
    return data.getvalue()


def half_transparent_image() -> bytes:
    data = io.BytesIO()
    image = painted()
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))))
    image.save(data, "PNG")
    return data.getvalue()


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    painted().transpose(Image.Transpose.ROTATE_90).save(data, "JPEG", exif=exif)
    return data.getvalue()


IMAGES: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "jpeg": (lambda: save("JPEG"), (160, 120)),
    "progressive jpeg": (lambda: save("JPEG", progressive=True), (160, 120)),
    "gray jpeg": (lambda: save("JPEG", "L"), (160, 120)),
    "cmyk jpeg": (lambda: save("JPEG", "CMYK"), (160, 120)),
    "sideways jpeg": (sideways, (160, 120)),
    "png": (lambda: save("PNG"), (160, 120)),
    "palette png": (lambda: save("PNG", "P"), (160, 120)),
    "16-bit png": (sixteen_bit_image, (160, 120)),
    "16-bit gray png": (sixteen_bit_gray_image, (160, 120)),
    "transparent png": (half_transparent_image, (160, 120)),
    "webp": (lambda: save("WEBP"), (160, 120)),
    "bmp": (lambda: save("BMP"), (160, 120)),
    "gif": (lambda: save("GIF"), (160, 120)),
    "tiff": (lambda: save("TIFF"), (160, 120)),
    "avif": (lambda: save("AVIF"), (160, 120)),
    "heic": ((Path(__file__).parents[1] / "avatar" / "samples" / "square.heic").read_bytes, (160, 120)),
    "odd": (lambda: save("PNG", size=(161, 121)), (162, 122)),
    "tiny": (lambda: save("PNG", size=(24, 16)), (144, 96)),
    "12 megapixels": (lambda: save("JPEG", size=(4000, 3000)), (3326, 2494)),
}


def cases(names: Iterable[str], quick: set[str]) -> list[object]:
    """Return the names; `make test` runs the quick ones. The tests of `avatar.media` decode the formats of them all."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


QUICK_IMAGES = {"jpeg", "sideways jpeg", "16-bit gray png", "transparent png", "heic", "odd", "tiny", "12 megapixels"}


@pytest.mark.parametrize("name", cases(IMAGES, QUICK_IMAGES))
async def test_an_image_of_every_format_becomes_a_video(post: Post, tmp_path: Path, name: str) -> None:
    make, size = IMAGES[name]
    (tmp_path / "face").write_bytes(make())
    speech = SPEECH[: RATE * 4 // 10] if name == "12 megapixels" else SPEECH
    response = await post(tmp_path / "face", write_wav(tmp_path / "speech.wav", speech), "png", quality="draft")
    check(response, tmp_path, size, Fraction(25), len(speech) / RATE)


H264 = ["-c:v", "libx264", "-preset", "ultrafast"]
VIDEOS: dict[str, tuple[str, list[str], tuple[int, int], str]] = {
    "mp4": ("mp4", [*H264, "-pix_fmt", "yuv420p"], (160, 120), "25"),
    "mov of mpeg4": ("mov", ["-c:v", "mpeg4"], (160, 120), "25"),
    "webm of vp8": ("webm", ["-c:v", "libvpx", "-deadline", "realtime"], (160, 120), "25"),
    "webm of vp9": ("webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime"], (160, 120), "25"),
    "mkv": ("mkv", [*H264, "-pix_fmt", "yuv420p"], (160, 120), "25"),
    "mkv of hevc": ("mkv", ["-c:v", "libx265", "-x265-params", "log-level=0"], (160, 120), "25"),
    "avi of mjpeg": ("avi", ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"], (160, 120), "25"),
    "avi of xvid": ("avi", ["-c:v", "mpeg4", "-vtag", "xvid"], (160, 120), "25"),
    "transport stream": ("ts", ["-c:v", "mpeg2video"], (160, 120), "25"),
    "23.976": ("mp4", [*H264, "-r", "24000/1001"], (160, 120), "24000/1001"),
    "59.94": ("mp4", [*H264, "-r", "60000/1001"], (160, 120), "60000/1001"),
    "10 bits": ("mp4", [*H264, "-pix_fmt", "yuv420p10le"], (160, 120), "25"),
    "hdr": (
        *(
            "mkv",
            ["-c:v", "libx265", "-x265-params", "log-level=0", "-pix_fmt", "yuv420p10le", "-color_trc", "smpte2084"],
        ),
        *((160, 120), "25"),
    ),
    "odd size": ("mkv", ["-c:v", "ffv1", "-vf", "scale=161:121"], (162, 122), "25"),
    "interlaced": ("mp4", [*H264, "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme"], (160, 120), "25"),
    "variable rate": ("mp4", [*H264, "-vf", r"select='not(eq(mod(n\,7)\,3))'", "-fps_mode", "vfr"], (160, 120), "25"),
    "b-frames": ("mp4", ["-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p"], (160, 120), "25"),
}


# one of each way through the decoder: rates, depths, sizes, fields, and one container that is not MP4
QUICK_VIDEOS = {"mp4", "webm of vp9", "23.976", "59.94", "hdr", "odd size", "interlaced", "variable rate"}


@pytest.mark.parametrize("name", cases(VIDEOS, QUICK_VIDEOS))
async def test_a_video_of_every_format_is_accepted(post: Post, tmp_path: Path, name: str) -> None:
    suffix, codec, size, fps = VIDEOS[name]
    painted().save(tmp_path / "frame.png")
    face = tmp_path / f"face.{suffix}"
    still = ["-loop", "1", "-framerate", "25", "-i", str(tmp_path / "frame.png"), "-t", "1"]
    ffmpeg(*still, "-pix_fmt", "yuv420p", *codec, str(face))
    response = await post(face, write_wav(tmp_path / "speech.wav", SPEECH), "mp4")
    check(response, tmp_path, size, Fraction(fps), 0.8)


@pytest.mark.parametrize(
    "tracks", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)]
)
async def test_the_audio_of_the_face_video_is_not_in_the_result(post: Post, tmp_path: Path, tracks: int) -> None:
    painted().save(tmp_path / "frame.png")
    own = ["-f", "lavfi", "-t", "2", "-i", "sine=1000"] * tracks
    maps = [word for n in range(tracks + 1) for word in ("-map", str(n))]
    still = ["-loop", "1", "-framerate", "25", "-t", "2", "-i", str(tmp_path / "frame.png")]
    ffmpeg(*still, *own, *maps, *H264, "-pix_fmt", "yuv420p", str(tmp_path / "face.mp4"))
    response = await post(tmp_path / "face.mp4", write_wav(tmp_path / "speech.wav", SPEECH), "mp4")
    check(response, tmp_path, (160, 120), Fraction(25), 0.8)
    spectrum = np.abs(np.fft.rfft(read_sound(tmp_path / "result.mp4")[:RATE]))
    assert spectrum.max() < 10 * np.median(spectrum)  # the video's own audio, a tone, is not in the result


async def test_a_video_with_rotation_metadata_is_turned_upright(post: Post, tmp_path: Path) -> None:
    painted().save(tmp_path / "frame.png")
    still = ["-loop", "1", "-framerate", "25", "-t", "2", "-i", str(tmp_path / "frame.png")]
    ffmpeg(*still, *H264, "-pix_fmt", "yuv420p", str(tmp_path / "sideways.mp4"))
    ffmpeg("-display_rotation", "90", "-i", str(tmp_path / "sideways.mp4"), "-c", "copy", str(tmp_path / "face.mp4"))
    response = await post(tmp_path / "face.mp4", write_wav(tmp_path / "speech.wav", SPEECH), "mp4")
    check(response, tmp_path, (120, 160), Fraction(25), 0.8)


async def test_the_content_decides_whether_a_file_is_an_image_or_a_video(post: Post, tmp_path: Path) -> None:
    speech = write_wav(tmp_path / "speech.wav", SPEECH)
    painted().save(tmp_path / "face.png")
    check(await post(tmp_path / "face.png", speech, "mp4"), tmp_path, (160, 120), Fraction(25), 0.8)
    still = ["-loop", "1", "-framerate", "30", "-t", "2", "-i", str(tmp_path / "face.png")]
    ffmpeg(*still, *H264, "-pix_fmt", "yuv420p", str(tmp_path / "face.mp4"))
    check(await post(tmp_path / "face.mp4", speech, "png"), tmp_path, (160, 120), Fraction(30), 0.8)


AUDIO: dict[str, tuple[str, list[str]]] = {
    "wav of 8 bits": ("wav", ["-c:a", "pcm_u8"]),
    "wav of 16 bits": ("wav", ["-c:a", "pcm_s16le"]),
    "wav of 24 bits": ("wav", ["-c:a", "pcm_s24le"]),
    "wav of 32 bits": ("wav", ["-c:a", "pcm_s32le"]),
    "wav of floats": ("wav", ["-c:a", "pcm_f32le"]),
    "wav of doubles": ("wav", ["-c:a", "pcm_f64le"]),
    "wav of a-law": ("wav", ["-c:a", "pcm_alaw", "-ar", "8000"]),
    "mp3": ("mp3", []),
    "m4a": ("m4a", []),
    "aac": ("aac", []),
    "vorbis": ("ogg", ["-c:a", "libvorbis"]),
    "opus": ("opus", []),
    "flac": ("flac", []),
    "webm": ("webm", []),
    "mkv": ("mkv", ["-c:a", "ac3"]),
    "aiff": ("aiff", []),
    "8 kHz": ("wav", ["-ar", "8000"]),
    "22.05 kHz": ("wav", ["-ar", "22050"]),
    "44.1 kHz": ("wav", ["-ar", "44100"]),
    "96 kHz": ("wav", ["-ar", "96000"]),
    "stereo": ("wav", ["-ac", "2"]),
    "5.1": ("wav", ["-ac", "6"]),
    "5.1 aac": ("m4a", ["-ac", "6"]),
    "clipping": ("wav", ["-af", "volume=20dB"]),
    "leading silence": ("wav", ["-af", "adelay=0.2s:all=1,atrim=0:0.8"]),
}


# samples of each kind, a codec that pads, one that does not, a low rate, many channels, and what is too loud
QUICK_AUDIO = {"wav of 24 bits", "wav of a-law", "mp3", "opus", "44.1 kHz", "5.1 aac", "clipping"}


@pytest.mark.parametrize("name", cases(AUDIO, QUICK_AUDIO))
async def test_audio_of_every_format_is_accepted(post: Post, tmp_path: Path, name: str) -> None:
    suffix, codec = AUDIO[name]
    painted().save(tmp_path / "face.png")
    source = write_wav(tmp_path / "source.wav", SPEECH)
    ffmpeg("-i", str(source), *codec, str(tmp_path / f"speech.{suffix}"))
    response = await post(tmp_path / "face.png", tmp_path / f"speech.{suffix}", "png")
    seconds = int(response.headers["x-avatar-frames"]) / 25 if response.status_code == 200 else 0
    assert abs(seconds - 0.8) < 0.16  # some codecs pad
    check(response, tmp_path, (160, 120), Fraction(25), seconds)


async def test_audio_with_nan_and_infinities_is_accepted(post: Post, tmp_path: Path) -> None:
    damaged = SPEECH.copy()
    damaged[4000:5000], damaged[6000] = np.nan, np.inf
    painted().save(tmp_path / "face.png")
    response = await post(tmp_path / "face.png", write_wav(tmp_path / "speech.wav", damaged), "png")
    check(response, tmp_path, (160, 120), Fraction(25), 0.8)


async def test_the_audio_of_a_video_is_accepted_as_speech(post: Post, tmp_path: Path) -> None:
    painted().save(tmp_path / "face.png")
    wav = write_wav(tmp_path / "source.wav", SPEECH)
    other = ["-f", "lavfi", "-t", "0.8", "-i", "testsrc=s=64x48", "-i", str(wav)]
    ffmpeg(*other, *H264, "-pix_fmt", "yuv420p", "-map", "0", "-map", "1", str(tmp_path / "speech.mp4"))
    response = await post(tmp_path / "face.png", tmp_path / "speech.mp4", "png")
    check(response, tmp_path, (160, 120), Fraction(25), 0.8)
