"""What is remembered of an avatar belongs to the versions of the networks that made it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from avatar.events import RenderResult
from avatar.inference.protocol import ModelInfo, Trial
from avatar.options import Generator, Options
from avatar.pipeline import render
from avatar.request import Background
from avatar.resources.cache import Cache
from avatar.testing import FakeInference
from lipsync.arrays import Floats, Images
from tests.support.media import request, tone, write_still, write_wav

OLD, NEW = ModelInfo(detector="old", segmenter="old"), ModelInfo(detector="new", segmenter="new")
TRIED = replace(OLD, trial=Trial(1.0, replace(NEW, versions={"s3fd": "2", "segmentation": "2"})))


async def job(folder: Path, cache: Cache, models: FakeInference) -> FakeInference:
    """Do a job with a still and a new background, and return its models."""
    face, speech = write_still(folder / "face.png"), write_wav(folder / "speech.wav", tone(0.2))
    form = replace(request(folder, face, speech, still=True), options=Options(), background=Background.GREEN)
    assert [event async for event in render(form, models, cache) if isinstance(event, RenderResult)]
    return models


def served(info: ModelInfo) -> FakeInference:
    models = FakeInference()
    models.info = info
    return models


def computed(models: FakeInference) -> tuple[bool, bool]:
    return models.frame_count > 0, models.calls["segment"] > 0


async def test_a_trial_neither_uses_nor_replaces_the_entries_of_the_active_versions(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 64 << 20)
    assert computed(await job(tmp_path, cache, served(OLD))) == (True, True)
    tried = await job(tmp_path, cache, served(TRIED))
    assert computed(tried) == (True, True)
    assert set(map(str, tried.versions)) == {str(TRIED.chosen("").versions)}
    assert computed(await job(tmp_path, cache, served(TRIED))) == (False, False)  # it has entries of its own
    assert computed(await job(tmp_path, cache, served(OLD))) == (False, False)  # after a rollback
    assert computed(await job(tmp_path, cache, served(NEW))) == (False, False)  # after an activation


class Replaced(FakeInference):
    """Models that are replaced by others during the detection."""

    async def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        self.info = NEW
        return await super().detect_faces(frames)


async def test_what_is_computed_while_a_version_is_replaced_is_not_remembered(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 64 << 20)
    models = Replaced()
    models.info = OLD
    await job(tmp_path, cache, models)
    assert (await models.model_info(Generator.WAV2LIP)).detector == "new"
    assert computed(await job(tmp_path, cache, served(OLD)))[0]
    assert computed(await job(tmp_path, cache, served(NEW))) == (True, True)
