"""A second clip with the same avatar needs no detection and no new background; any other input is computed again."""

import json
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avatar
import lipsync
from avatar.errors import FaceNotFound
from avatar.events import RenderResult
from avatar.limits import Limits
from avatar.media import ffmpeg, probe
from avatar.options import Detection, NoFace, Options
from avatar.pipeline import render
from avatar.request import Background
from avatar.resources.avatar_cache import code_digest, source_digest
from avatar.resources.cache import Cache
from avatar.testing import FakeInference
from tests.support.media import (
    Frames,
    file_of,
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
    seconds: float = 0.4,
    video: Frames | None = None,
    options: Options | None = None,
    background: Background = Background.FROM_INPUT,
) -> Frames:
    """Return the frames of the result; the face is a still unless there is a `video`."""
    if video is None:
        face = write_still(folder / "face.png")
    else:
        face = folder / "face.mp4"
        if not face.exists():
            write_video(face, video)
    avatar_request = request(folder, face, write_wav(folder / "speech.wav", tone(seconds)), still=video is None)
    avatar_request = replace(avatar_request, options=options or Options(), background=background)
    (result,) = [event async for event in render(avatar_request, models, cache) if isinstance(event, RenderResult)]
    return read_video(file_of(result))


def models(export: str = "one", **options: object) -> FakeInference:
    return FakeInference(find_square, export=export, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("video", [None, moving_square(10)], ids=["still", "video"])
@pytest.mark.parametrize("detection", list(Detection))
async def test_the_face_of_the_same_avatar_is_not_detected_again(
    tmp_path: Path, cache: Cache, video: Frames | None, detection: Detection
) -> None:
    first, again, elsewhere = models(), models(), models()
    options = Options(detection=detection)
    one = await job(tmp_path, cache, first, video=video, options=options)
    other = await job(tmp_path, cache, again, video=video, options=options)
    third = await job(
        tmp_path, Cache(tmp_path / "cache", MIB), elsewhere, video=video, options=options
    )  # of another process
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, third)
    assert first.frame_count > 0
    assert again.frame_count == elsewhere.frame_count == 0


async def test_shorter_speech_uses_the_cached_frames_and_longer_speech_detects_again(
    tmp_path: Path, cache: Cache
) -> None:
    frames = moving_square(24)
    await job(tmp_path, cache, models(), video=frames, seconds=0.4)
    shorter, longer, loop = models(), models(), models()
    await job(tmp_path, cache, shorter, video=frames, seconds=0.24)
    assert shorter.frame_count == 0
    assert len(await job(tmp_path, cache, longer, video=frames, seconds=0.8)) == 20
    assert longer.frame_count > 0
    await job(tmp_path, cache, models(), video=frames, seconds=1.2)
    assert len(await job(tmp_path, cache, loop, video=frames, seconds=1.6)) == 40
    assert loop.frame_count == 0  # all frames of the video are cached


async def test_results_of_another_model_or_from_another_image_are_not_used(tmp_path: Path, cache: Cache) -> None:
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
    assert padded.frame_count == 0  # padding is applied after the cache


async def test_nothing_is_cached_for_models_without_a_known_export(tmp_path: Path, cache: Cache) -> None:
    for _ in range(2):
        unknown = models("")
        await job(tmp_path, cache, unknown)
        await job(tmp_path, cache, unknown, background=Background.GREEN, options=Options(box=(10, 50, 10, 50)))
        assert unknown.frame_count > 0
        assert unknown.calls["segment"] == 1
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("background", [Background.GREEN, Background.TRANSPARENT])
async def test_a_replaced_background_is_cached(tmp_path: Path, cache: Cache, background: Background) -> None:
    box, results, calls = Options(box=(10, 50, 10, 50)), [], []
    for _ in range(2):
        face, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "speech.wav", tone(0.4))
        avatar_request = replace(request(tmp_path, face, speech, still=True, background=background), options=box)
        used = models()
        (result,) = [event async for event in render(avatar_request, used, cache) if isinstance(event, RenderResult)]
        results.append(read_video(file_of(result)))
        calls.append(used.calls["segment"])
    np.testing.assert_array_equal(results[0], results[1])
    assert calls == [1, 0]
    other = models()
    await job(tmp_path, cache, other, options=box, background=Background.RED)
    assert other.calls["segment"] == 1


async def test_frames_without_a_face_are_cached_as_such(tmp_path: Path, cache: Cache) -> None:
    frames = moving_square(10)
    frames[5:8] //= 2
    keep = Options(no_face=NoFace.KEEP)
    one = await job(tmp_path, cache, models(), video=frames, options=keep)
    again = models()
    np.testing.assert_array_equal(await job(tmp_path, cache, again, video=frames, options=keep), one)
    assert again.frame_count == 0
    with pytest.raises(FaceNotFound) as error:
        await job(tmp_path, cache, models(), video=frames)
    assert error.value.seconds == pytest.approx(5 / 25)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of ffmpeg that describe a file, since the start of the test."""
    commands: list[list[str]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            if "framecrc" in command:
                commands.append(command)
            super().__init__(command, **options)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return commands


async def test_a_video_that_was_seen_before_is_not_probed_again(
    tmp_path: Path, cache: Cache, probes: list[list[str]]
) -> None:
    frames = moving_square(10)
    made = await job(tmp_path, cache, models(), video=frames)
    assert len(probes) == 2  # its first frame, and the times of its frames
    again = await job(tmp_path, Cache(tmp_path / "cache", MIB), models("two"), video=frames)  # whatever the models are
    np.testing.assert_array_equal(again, made)
    assert len(probes) == 2
    (tmp_path / "face.mp4").unlink()
    other = await job(tmp_path, cache, models(), video=moving_square(10, width=200))
    assert other.shape[2] == 200
    assert len(probes) == 4


async def test_another_ffmpeg_is_asked_again(
    tmp_path: Path, cache: Cache, probes: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, box = moving_square(4), Options(box=(10, 50, 10, 50))
    for name, count in (("", 2), ("an update", 4), ("an update", 4)):
        if name:
            monkeypatch.setattr(ffmpeg, "identity", lambda: "an update")
        await job(tmp_path, cache, models(), video=frames, options=box)
        assert len(probes) == count


async def test_facts_of_a_video_that_could_not_be_read_to_its_end_are_not_kept(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(path: Path, limits: Limits) -> str:
        return ""

    monkeypatch.setattr(probe, "_list_packets", nothing)
    await job(tmp_path, cache, models(), video=moving_square(4), options=Options(box=(10, 50, 10, 50)))
    assert list((tmp_path / "cache").iterdir()) == []


def test_facts_survive_as_json() -> None:
    facts = probe.VideoFacts(
        640, 480, "4/3", {"fmt": "yuv420p", "i": "P"}, "h264", "", False, Fraction(30000, 1001), 250, True, True
    )
    assert probe.VideoFacts.from_json(facts.to_json()) == facts
    for name, wrong in (("width", 1.5), ("frame_count", 0), ("first_frame", []), ("codec", 1), ("fps", "x")):
        changed = json.dumps({**json.loads(facts.to_json()), name: wrong}).encode()
        with pytest.raises(ValueError, match=r"facts|Fraction"):
            probe.VideoFacts.from_json(changed)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"fps": "1/0"}', b"\xff"])
async def test_an_entry_that_does_not_describe_the_video_is_dropped_and_the_video_probed_again(
    tmp_path: Path, cache: Cache, probes: list[list[str]], content: bytes
) -> None:
    frames, box = moving_square(4), Options(box=(10, 50, 10, 50))  # which needs no other entry
    made = await job(tmp_path, cache, models(), video=frames, options=box)
    (entry,) = (tmp_path / "cache").iterdir()
    for arrays in ({"data": np.frombuffer(content, np.uint8)}, {"data": np.zeros((2, 2))}, {}):
        np.savez(entry, **arrays)
        other = await job(tmp_path, Cache(tmp_path / "cache", MIB), models(), video=frames, options=box)
        np.testing.assert_array_equal(other, made)
    assert len(probes) == 2 * 4
    await job(tmp_path, Cache(tmp_path / "cache", MIB), models(), video=frames, options=box)
    assert len(probes) == 2 * 4  # it was stored again


NOT_BOXES: dict[str, dict[str, Any]] = {
    "no arrays": {},
    "other names": {"boxes": np.zeros((30, 4), np.int32)},
    "too few boxes": {"corners": np.zeros((3, 4), np.int32), "found": np.ones(30, bool), "whole": np.array(True)},
    "no boxes": {"corners": np.zeros((0, 4), np.int32), "found": np.ones(0, bool), "whole": np.array(True)},
    "floats": {"corners": np.zeros((30, 4)), "found": np.ones(30, bool), "whole": np.array(True)},
    "text": {"corners": np.full((30, 4), "1"), "found": np.ones(30, bool), "whole": np.array(True)},
    "scalars": {"corners": np.array(0), "found": np.array(1), "whole": np.array(1)},
}
NOT_THE_IMAGE: dict[str, dict[str, Any]] = {
    "no arrays": {},
    "another size": {"image": np.zeros((5, 5, 3), np.uint8)},
    "gray": {"image": np.zeros((120, 160), np.uint8)},
    "floats": {"image": np.zeros((120, 160, 3))},
    "another alpha channel": {"image": np.zeros((120, 160, 3), np.uint8), "alpha": np.zeros((5, 5), np.uint8)},
}


@pytest.mark.parametrize("content", NOT_BOXES)
async def test_an_entry_that_does_not_hold_boxes_is_dropped_and_the_face_detected_again(
    tmp_path: Path, cache: Cache, content: str
) -> None:
    made = await job(tmp_path, cache, models())
    (entry,) = (tmp_path / "cache").iterdir()
    np.savez(entry, **NOT_BOXES[content])
    again = models()
    np.testing.assert_array_equal(await job(tmp_path, Cache(tmp_path / "cache", MIB), again), made)
    assert again.frame_count > 0
    third = models()
    await job(tmp_path, Cache(tmp_path / "cache", MIB), third)
    assert third.frame_count == 0  # it was stored again


@pytest.mark.parametrize("content", NOT_THE_IMAGE)
async def test_an_entry_that_does_not_hold_the_image_is_dropped_and_the_background_replaced_again(
    tmp_path: Path, cache: Cache, content: str
) -> None:
    box = Options(box=(10, 50, 10, 50))
    made = await job(tmp_path, cache, models(), background=Background.GREEN, options=box)
    (entry,) = (tmp_path / "cache").iterdir()
    np.savez(entry, **NOT_THE_IMAGE[content])
    again = models()
    other = await job(tmp_path, Cache(tmp_path / "cache", MIB), again, background=Background.GREEN, options=box)
    np.testing.assert_array_equal(other, made)
    assert again.calls["segment"] == 1


def test_a_change_in_any_package_of_the_code_changes_its_digest(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "room" / "deep").mkdir(parents=True)
    modules = [package / "top.py", package / "room" / "inner.py", package / "room" / "deep" / "innermost.py"]
    for module in modules:
        module.write_text("one = 1\n")
    digests = {source_digest([package])}
    for module in modules:
        module.write_text("one = 2\n")
        digests.add(source_digest([package]))
    assert len(digests) == 1 + len(modules)
    (package / "room" / "notes.txt").write_text("no code")
    assert source_digest([package]) in digests


def test_the_digest_of_the_code_covers_every_module_of_avatar_and_lipsync(tmp_path: Path) -> None:
    copies = []
    for package in (avatar, lipsync):
        folder = Path(str(package.__file__)).parent
        copies.append(shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__")))
    digest = code_digest.__wrapped__()  # not the cached one, which is from the start of the process
    assert source_digest(copies) == digest
    (copies[0] / "faces" / "selection.py").write_text("")
    assert source_digest(copies) != digest
