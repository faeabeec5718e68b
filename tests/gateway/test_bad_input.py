"""Invalid input is rejected and unusual input is accepted: the real job on real files, with fake models."""

import io
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from avatar.errors import Unavailable
from avatar.inference.protocol import InferenceClient
from avatar.pipeline import render as real_render
from avatar.testing import FakeInference
from tests.support.gateway_fakes import Serve, contents, leftovers
from tests.support.media import (
    ffmpeg,
    frame_count,
    moving_square,
    read_video,
    tone,
    write_still,
    write_video,
    write_wav,
)

FPS = 25
Post = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """`face.png`, `face.jpg`, `face.mp4` (10 frames) and `speech.wav` (0.5 s), all valid."""
    folder = tmp_path / "media"
    folder.mkdir()
    write_still(folder / "face.png")
    Image.open(folder / "face.png").save(folder / "face.jpg", quality=95)
    write_video(folder / "face.mp4", moving_square(10))
    write_wav(folder / "speech.wav", tone(0.5))
    return folder


@pytest.fixture
def post(serve: Serve, work: Path, media: Path) -> Post:
    """Post a form of files in `media`, and assert after each response that no file is left."""

    async def posting(
        face: str | bytes = "face.png",
        speech: str | bytes = "speech.wav",
        extension: str = "png",
        background: str = "From Input",
        models: InferenceClient | None = None,
    ) -> httpx.Response:
        parts: dict[str, tuple[str | None, bytes | str]] = {
            "face_file": ("face", face if isinstance(face, bytes) else (media / face).read_bytes()),
            "audio_file": ("speech", speech if isinstance(speech, bytes) else (media / speech).read_bytes()),
            "avatarFileType": (None, extension),
            "background": (None, background),
        }
        async with serve(models or FakeInference(), job=real_render) as client:
            response = await client.post("/", files=parts)
            assert leftovers(work) == []
        assert contents(work) == []
        return response

    return posting


def assert_rejected(response: httpx.Response, field: str, *words: str) -> None:
    assert response.status_code == 400, response.text
    detail = response.json()["detail"]
    assert detail.startswith(f"{field}: ")
    assert any(word in detail for word in words), detail
    assert "/" not in detail  # shows no path of the server


def video_of(response: httpx.Response, folder: Path) -> np.ndarray:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/mp4"
    path = folder / "answer.mp4"
    path.write_bytes(response.content)
    frames = read_video(path)
    assert response.headers["x-avatar-frames"] == str(len(frames))
    return frames


async def test_a_valid_form_gets_its_video(post: Post, tmp_path: Path) -> None:
    assert len(video_of(await post(), tmp_path)) == frame_count(8000, FPS)


async def test_a_text_file_is_not_an_image(post: Post) -> None:
    assert_rejected(await post(face=b"just a text\n" * 50), "face_file", "not an image")


async def test_a_truncated_jpeg_is_rejected(post: Post, media: Path) -> None:
    whole = (media / "face.jpg").read_bytes()
    assert_rejected(await post(face=whole[: len(whole) // 2], extension="jpg"), "face_file", "truncated")


async def test_a_video_that_is_declared_as_an_image_is_accepted(post: Post) -> None:
    assert (await post(face="face.mp4", extension="jpg")).status_code == 200


async def test_a_text_file_is_not_a_video(post: Post) -> None:
    assert_rejected(await post(face=b"just a text\n" * 50, extension="mp4"), "face_file", "not a video")


async def test_a_video_without_frames_is_rejected(post: Post, media: Path) -> None:
    audio_only = ["-i", str(media / "speech.wav"), "-c:a", "aac", "-f", "mp4", str(media / "sound.mp4")]
    ffmpeg(*audio_only)
    assert_rejected(await post(face="sound.mp4", extension="mp4"), "face_file", "video")


async def test_a_video_that_ends_before_its_frames_is_rejected(post: Post, media: Path) -> None:
    assert_rejected(await post(face=(media / "face.mp4").read_bytes()[:60], extension="mp4"), "face_file", "video")


async def test_a_text_file_is_not_audio(post: Post) -> None:
    assert_rejected(await post(speech=b"just a text\n" * 50), "audio_file", "not an audio file")


async def test_a_video_without_audio_is_rejected_as_speech(post: Post) -> None:
    assert_rejected(await post(speech="face.mp4"), "audio_file", "no audio")


async def test_an_image_is_rejected_as_speech(post: Post) -> None:
    assert_rejected(await post(speech="face.png"), "audio_file", "no audio")


async def test_a_wav_without_samples_is_rejected(post: Post, media: Path) -> None:
    write_wav(media / "none.wav", np.zeros(0, np.float32))
    assert_rejected(await post(speech="none.wav"), "audio_file", "no audio")


async def test_a_list_of_other_files_is_not_followed(post: Post, media: Path) -> None:
    playlist = f"ffconcat version 1.0\nfile '{media / 'face.mp4'}'\n".encode()
    assert_rejected(await post(face=playlist, extension="mp4"), "face_file", "video")
    stream = f"#EXTM3U\n#EXTINF:1,\n{media / 'speech.wav'}\n#EXT-X-ENDLIST\n".encode()
    assert_rejected(await post(speech=stream), "audio_file", "not an audio file")


@pytest.mark.parametrize("extension", ["png", "mp4"])
async def test_a_missing_face_gets_the_sentence_of_the_original_service(post: Post, extension: str) -> None:
    response = await post(face=f"face.{extension}", extension=extension, models=FakeInference(face=lambda image: None))
    sentence = "Face not detected! Ensure the video contains a face in all the frames."
    assert (response.status_code, response.json()) == (400, {"detail": sentence})


async def test_speech_shorter_than_a_window_is_accepted(post: Post, media: Path, tmp_path: Path) -> None:
    write_wav(media / "short.wav", tone(0.1))
    assert len(video_of(await post(speech="short.wav"), tmp_path)) == frame_count(3200, FPS)


async def test_audio_with_nan_and_infinities_is_accepted(post: Post, media: Path, tmp_path: Path) -> None:
    samples = tone(0.5)
    samples[100:200], samples[300], samples[400] = np.nan, np.inf, -np.inf
    write_wav(media / "nan.wav", samples)
    assert len(video_of(await post(speech="nan.wav"), tmp_path)) == frame_count(8000, FPS)


async def test_silence_is_accepted(post: Post, media: Path, tmp_path: Path) -> None:
    write_wav(media / "silence.wav", np.zeros(8000, np.float32))
    assert len(video_of(await post(speech="silence.wav"), tmp_path)) == frame_count(8000, FPS)


async def test_a_video_is_accepted_with_any_background_value(post: Post, tmp_path: Path) -> None:
    frames = video_of(await post(face="face.mp4", extension="mp4", background="no colour at all"), tmp_path)
    assert len(frames) == frame_count(8000, FPS)


@pytest.mark.parametrize("extension", ["../../etc/passwd", "mp4/../../../x", "mp4\x00.png", "$(touch x)", "x" * 1000])
async def test_an_extension_is_never_part_of_a_path(post: Post, tmp_path: Path, extension: str) -> None:
    before = contents(tmp_path)
    assert len(video_of(await post(face="face.mp4", extension=extension), tmp_path)) == frame_count(8000, FPS)
    assert set(contents(tmp_path)) - set(before) == {tmp_path / "answer.mp4"}


async def test_a_background_is_changed_to_the_requested_color(post: Post, tmp_path: Path) -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    image[:] = (40, 40, 60)
    image[20:80, 40:90] = (200, 90, 60)  # red enough to be a person
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    frames = video_of(await post(face=file.getvalue(), background="Green"), tmp_path)
    blue, green, red = frames[0, 5, 5].astype(int)
    assert (red < 60, green > 200, blue < 60) == (True, True, True)


async def test_models_that_fail_during_a_job_result_in_a_503_and_no_file_is_left(post: Post) -> None:
    response = await post(models=FakeInference(failures={"wav2lip": Unavailable("Triton has stopped")}))
    assert (response.status_code, response.json()) == (503, {"detail": "Triton has stopped"})
    assert int(response.headers["retry-after"]) > 0
