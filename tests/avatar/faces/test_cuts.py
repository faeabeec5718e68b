"""A cut to another scene is no gap in which the face is lost."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.faces.cuts import is_cut
from avatar.options import Detection, NoFace, Options
from avatar.testing import FakeInference
from lipsync.arrays import Image, Images
from tests.support.faces import locate, without_face
from tests.support.media import find_square, moving_square, write_video


def landscape(count: int, width: int = 160, height: int = 120) -> Images:
    """Return frames of another scene: stripes and blobs, without a white square."""
    rng = np.random.RandomState(5)
    scene = cv2.resize(rng.randint(0, 150, (8, 10, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.repeat(scene[None], count, axis=0)


def photograph(samples: Path) -> Image:
    return np.asarray(cv2.imread(str(samples / "portrait.png")), np.uint8)


def test_another_scene_is_a_cut(samples: Path) -> None:
    person = photograph(samples)
    for other in (landscape(1, *person.shape[1::-1])[0], np.zeros_like(person), person[::-1, ::-1].copy()):
        assert is_cut(person, other)
        assert is_cut(other, person)


def test_motion_light_and_an_object_before_the_face_are_no_cut(samples: Path) -> None:
    person = photograph(samples)
    hand = person.copy()
    hand[100:300, 150:350] = (90, 120, 190)
    brighter = np.clip(person.astype(int) + 40, 0, 255).astype(np.uint8)
    moved = np.roll(person, 30, axis=1)
    noise = np.random.RandomState(0).randint(-6, 7, person.shape)
    noisy = np.clip(person.astype(int) + noise, 0, 255).astype(np.uint8)
    for other in (person, hand, brighter, moved, noisy):
        assert not is_cut(person, other)


@pytest.mark.parametrize("detection", list(Detection))
async def test_frames_of_a_cut_away_pass_as_they_are(tmp_path: Path, detection: Detection) -> None:
    frames = moving_square(40)
    frames[15:25] = landscape(10)
    path = write_video(tmp_path / "a.mp4", frames)
    located = await locate(path, 40, Options(no_face=NoFace.KEEP, detection=detection), FakeInference(find_square))
    assert [frame.box is None for frame in located] == [15 <= n < 25 for n in range(40)]
    assert not any(located[n].found for n in range(15, 25))


@pytest.mark.parametrize("detection", list(Detection))
async def test_a_face_that_is_lost_for_a_moment_is_bridged(tmp_path: Path, detection: Detection) -> None:
    frames = without_face(moving_square(40), *range(15, 25))
    path = write_video(tmp_path / "a.mp4", frames)
    located = await locate(path, 40, Options(no_face=NoFace.KEEP, detection=detection), FakeInference(find_square))
    assert all(frame.box is not None for frame in located)
    assert [frame.found for frame in located] == [not 15 <= n < 25 for n in range(40)]
