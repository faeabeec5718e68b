"""A second clip with the same avatar pays no detection, and no second background; whatever else differs begins anew."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import FaceNotFound
from avatar.events import RenderResult
from avatar.options import Detection, NoFace, Options
from avatar.pipeline import render
from avatar.request import Background
from avatar.resources.cache import Cache
from avatar.testing import FakeInference
from tests.support.media import (
    Frames,
    find_square,
    moving_square,
    read_video,
    request,
    tone,
    write_still,
    write_video,
    write_wav,
)

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 64 * MIB)


async def job(
    folder: Path,
    cache: Cache | None,
    models: FakeInference,
    *,
    seconds: float = 1.0,
    video: Frames | None = None,
    options: Options | None = None,
    background: Background = Background.FROM_INPUT,
) -> Frames:
    """The frames of the result; the face is a still unless `video` says otherwise."""
    if video is None:
        face = write_still(folder / "face.png")
    else:
        face = folder / "face.mp4"
        if not face.exists():
            write_video(face, video)
    made = request(folder, face, write_wav(folder / "speech.wav", tone(seconds)), still=video is None)
    made = replace(made, options=options or Options(), background=background)
    (result,) = [event async for event in render(made, models, cache) if isinstance(event, RenderResult)]
    return read_video(result.path)


def models(export: str = "one", **options: object) -> FakeInference:
    return FakeInference(find_square, export=export, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("video", [None, moving_square(30)], ids=["still", "video"])
@pytest.mark.parametrize("detection", list(Detection))
async def test_the_same_avatar_is_not_looked_at_again(
    tmp_path: Path, cache: Cache, video: Frames | None, detection: Detection
) -> None:
    first, again, elsewhere = models(), models(), models()
    options = Options(detection=detection)
    one = await job(tmp_path, cache, first, video=video, options=options)
    other = await job(tmp_path, cache, again, video=video, options=options)
    third = await job(tmp_path, Cache(tmp_path / "cache", MIB), elsewhere, video=video, options=options)  # a worker
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, third)
    assert first.frame_count > 0
    assert again.frame_count == elsewhere.frame_count == 0


async def test_shorter_speech_uses_the_frames_that_are_known_and_longer_speech_looks_again(
    tmp_path: Path, cache: Cache
) -> None:
    frames = moving_square(60)
    await job(tmp_path, cache, models(), video=frames, seconds=1.0)
    shorter, longer, loop = models(), models(), models()
    await job(tmp_path, cache, shorter, video=frames, seconds=0.6)
    assert shorter.frame_count == 0
    assert len(await job(tmp_path, cache, longer, video=frames, seconds=2.0)) == 50
    assert longer.frame_count > 0
    await job(tmp_path, cache, models(), video=frames, seconds=3.0)
    assert len(await job(tmp_path, cache, loop, video=frames, seconds=4.0)) == 100
    assert loop.frame_count == 0  # all of the video is known


async def test_what_was_computed_by_another_model_or_from_another_picture_is_not_used(
    tmp_path: Path, cache: Cache
) -> None:
    await job(tmp_path, cache, models())
    for other, options in (
        (models("two"), Options()),
        (models(), Options(detection=Detection.EXACT)),
        (models(), Options(resize_factor=2)),
        (models(), Options(crop=(0, 100, 0, 100))),
    ):
        await job(tmp_path, cache, other, options=options)
        assert other.frame_count > 0
    padded = models()
    await job(tmp_path, cache, padded, options=Options(pads=(0, 20, 0, 0)))
    assert padded.frame_count == 0  # pads come after


async def test_of_models_that_nobody_knows_nothing_is_kept(tmp_path: Path, cache: Cache) -> None:
    for _ in range(2):
        unknown = models("")
        await job(tmp_path, cache, unknown)
        await job(tmp_path, cache, unknown, background=Background.GREEN, options=Options(box=(10, 50, 10, 50)))
        assert unknown.frame_count > 0
        assert unknown.calls["segment"] == 1
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("background", [Background.GREEN, Background.TRANSPARENT])
async def test_a_changed_background_is_remembered(tmp_path: Path, cache: Cache, background: Background) -> None:
    box, results, calls = Options(box=(10, 50, 10, 50)), [], []
    for _ in range(2):
        face, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "speech.wav", tone(0.4))
        made = replace(request(tmp_path, face, speech, still=True, background=background), options=box)
        used = models()
        (result,) = [event async for event in render(made, used, cache) if isinstance(event, RenderResult)]
        results.append(read_video(result.path))
        calls.append(used.calls["segment"])
    np.testing.assert_array_equal(*results)
    assert calls == [1, 0]
    other = models()
    await job(tmp_path, cache, other, options=box, background=Background.RED)
    assert other.calls["segment"] == 1


async def test_frames_without_a_face_are_remembered_as_such(tmp_path: Path, cache: Cache) -> None:
    frames = moving_square(30)
    frames[10:14] //= 2
    keep = Options(no_face=NoFace.KEEP)
    one = await job(tmp_path, cache, models(), video=frames, options=keep)
    again = models()
    np.testing.assert_array_equal(await job(tmp_path, cache, again, video=frames, options=keep), one)
    assert again.frame_count == 0
    with pytest.raises(FaceNotFound) as error:
        await job(tmp_path, cache, models(), video=frames)
    assert error.value.seconds == pytest.approx(10 / 25)
