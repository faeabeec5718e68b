"""What is remembered of the models, and when silence counts."""

from __future__ import annotations

import asyncio

import pytest

from avatar.errors import AvatarError, ModelLost, Unavailable
from avatar.inference import readiness
from avatar.inference.readiness import NEEDED, Readiness, fault_of, lost_model, tiny_inputs
from lipsync import tensors
from lipsync.errors import InvalidInput
from lipsync.tensors import Model


class Models:
    """Models that answer, or fail as a test says, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.silent: set[str] = set()
        self.readiness = Readiness(self._call, lambda: self.now)

    async def check(self) -> None:
        await self.readiness.check(self._loaded)

    async def _loaded(self) -> None:
        return None

    async def _call(self, model: Model) -> None:
        self.calls.append(model.name)
        if model.name in self.silent:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    monkeypatch.setattr(readiness, "CALL_SECONDS", 0.05)
    return Models()


async def test_an_answer_is_remembered_for_seconds_only(models: Models) -> None:
    await models.check()
    models.now = readiness.REMEMBERED_SECONDS - 0.1
    await models.check()
    assert models.calls == [model.name for model in NEEDED]
    models.now = readiness.REMEMBERED_SECONDS
    await models.check()
    assert models.calls == [model.name for model in NEEDED] * 2


async def test_calls_of_jobs_count_as_answers_also_those_of_ensembles(models: Models) -> None:
    for model in (tensors.MEL_SPECTROGRAM, tensors.DETECT_FACES, tensors.WAV2LIP):
        models.readiness.answered(model)
    await models.check()
    assert models.calls == ["segmentation"]


async def test_silence_of_a_model_that_has_just_answered_is_work_and_not_a_fault(models: Models) -> None:
    await models.check()
    models.silent = {"s3fd"}
    for models.now in (5.0, 10.0, 19.0):
        await models.check()
    models.now = readiness.SILENT_SECONDS
    with pytest.raises(Unavailable, match="s3fd does not answer"):
        await models.check()


async def test_a_model_that_rejects_a_tiny_call_answers(models: Models) -> None:
    models.error = InvalidInput("too small")
    await models.check()


async def test_any_other_error_of_a_tiny_call_means_not_ready(models: Models) -> None:
    models.error = AvatarError("mel_spectrogram failed")
    with pytest.raises(Unavailable, match="not ready: mel_spectrogram failed"):
        await models.check()


async def test_a_model_whose_process_died_is_another_error_than_one_that_is_not_ready(models: Models) -> None:
    models.error = fault_of("Stub process 'mel_spectrogram_0_12' is not healthy.")
    with pytest.raises(ModelLost, match="not ready: mel_spectrogram cannot be reached"):
        await models.check()


async def test_a_check_goes_on_for_others_when_one_caller_leaves(models: Models) -> None:
    models.silent = {"wav2lip"}
    one, other = (asyncio.create_task(models.check()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    with pytest.raises(Unavailable, match="wav2lip does not answer"):
        await other
    assert models.calls.count("wav2lip") == 1


@pytest.mark.parametrize("model", [*NEEDED, tensors.WAV2LIP_GAN, tensors.FACE_PASTE], ids=lambda model: model.name)
def test_tiny_inputs_fit_the_table(model: Model) -> None:
    for tensor, array in tiny_inputs(model):
        tensor.check(array, batched=bool(model.max_batch_size))


@pytest.mark.parametrize(
    ("message", "model"),
    [
        ("in ensemble 'lipsync', Stub process 'wav2lip_0_0' is not healthy.", "wav2lip"),
        ("Stub process 'mel_spectrogram_0_12' is not healthy.", "mel_spectrogram"),
        ("in ensemble 'lipsync', out of memory", ""),
    ],
)
def test_the_lost_model_is_read_from_the_message_of_triton(message: str, model: str) -> None:
    assert lost_model(message) == model
