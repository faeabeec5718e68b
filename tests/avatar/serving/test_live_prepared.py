"""Prepared avatars: which are kept, by which ids, and that another process finds them."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avatar.options import Blend, ExtendMode, Generator, Options
from avatar.serving.live_avatar import LiveAvatar
from avatar.serving.live_prepared import PreparedAvatars, UnknownAvatar, open_shared
from tests.support.files import files_below

OPTIONS = Options(model=Generator.WAV2LIP_GAN, blend=Blend.FEATHER, extend=ExtendMode.BOUNCE)


def avatar(level: int = 0, images: int = 2) -> LiveAvatar:
    pictures = [np.full((100, 120, 3), level + n, np.uint8) for n in range(images)]
    boxes = [None, *[np.array([1, 2, 97, 98], np.int32)] * (images - 1)]
    crops = np.full((images, 96, 96, 3), level, np.uint8)
    return LiveAvatar(pictures, boxes, crops, Fraction(30_000, 1001), OPTIONS, ("s3fd",))


SIZE = avatar().size


def test_the_least_recently_used_avatars_are_forgotten() -> None:
    async def test() -> None:
        kept = PreparedAvatars(2 * SIZE + 1)
        first, second = [await kept.add(name, avatar()) for name in ("first", "second")]
        await kept.get(first)
        third = await kept.add("third", avatar())
        assert kept.find("second") is None
        with pytest.raises(UnknownAvatar, match="avatar: no avatar is kept under this id"):
            await kept.get(second)
        assert {kept.find(name)[0] for name in ("first", "third")} == {first, third}  # type: ignore[index]
        assert len({first, second, third}) == 3

    asyncio.run(test())


def test_the_same_avatar_has_one_id_and_one_that_is_too_large_has_none() -> None:
    async def test() -> None:
        kept = PreparedAvatars(SIZE)
        assert await kept.add("a", avatar()) == await kept.add("a", avatar(7)) != ""
        assert await kept.add("b", avatar(images=3)) == ""
        assert await PreparedAvatars(0).add("a", avatar()) == ""

    asyncio.run(test())


def test_another_process_finds_an_avatar_by_its_id(tmp_path: Path) -> None:
    async def test() -> None:
        one, other = (PreparedAvatars(4 * SIZE, open_shared(tmp_path, 4 * SIZE)) for _ in range(2))
        identity = await one.add("a", avatar(9))
        assert identity not in str(files_below(tmp_path))
        found, original = await other.get(identity), avatar(9)
        for mine, theirs in zip(found.images, original.images, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert found.boxes[0] is None
        assert found.boxes[1] is not None
        assert found.boxes[1].tolist() == [1, 2, 97, 98]
        np.testing.assert_array_equal(found.crops, original.crops)
        rest = [each.name for each in fields(found) if each.name not in ("images", "boxes", "crops")]
        assert [getattr(found, name) for name in rest] == [getattr(original, name) for name in rest]
        assert await other.get(identity) is found
        with pytest.raises(UnknownAvatar):
            await other.get("unknown")

    asyncio.run(test())
