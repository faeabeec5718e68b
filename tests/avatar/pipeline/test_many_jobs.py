"""Many jobs in one process share the network and the memory."""

import asyncio
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from avatar.events import Event, Progress, RenderResult
from avatar.generation import generator
from avatar.inference.protocol import InferenceClient
from avatar.load import LOAD, MemoryBudget
from avatar.pipeline import render
from avatar.request import AvatarRequest
from avatar.testing import FakeInference
from tests.support.media import children, names, request, run, tone, until, write_still, write_wav


@pytest.fixture
def still(tmp_path: Path) -> AvatarRequest:
    speech = write_wav(tmp_path / "speech.wav", tone(6))
    return request(tmp_path, write_still(tmp_path / "face.png"), speech, still=True)


async def events_of(job: AvatarRequest, models: InferenceClient, memory: MemoryBudget) -> list[Event]:
    async with aclosing(render(job, models, memory=memory)) as events:
        return [event async for event in events]


@pytest.mark.parametrize(("others", "most"), [(0, generator.CONCURRENCY), (3, 3), (5, 2), (11, 1), (40, 1)])
async def test_a_job_has_fewer_chunks_in_the_network_where_many_run(
    still: AvatarRequest, others: int, most: int
) -> None:
    models = FakeInference()
    models.gates["wav2lip"] = asyncio.Event()
    with ExitStack() as held:
        for _ in range(others):
            held.enter_context(LOAD.job())
        running = asyncio.create_task(run(still, models))
        await until(lambda: models.running["wav2lip"] == most)
        models.gates["wav2lip"].set()
        assert (await running).frames == 150
    assert models.max_running["wav2lip"] == most
    assert LOAD.jobs == 0


async def test_a_job_waits_for_memory_before_it_starts_an_encoder(
    still: AvatarRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avatar.pipeline.WAIT_SECONDS", 0.01)
    memory, models, before = MemoryBudget(1 << 20), FakeInference(), children()
    with memory.reserve(1):
        running = asyncio.create_task(events_of(still, models, memory))
        await until(lambda: memory.queued == 1)
        await asyncio.sleep(0.1)
        assert not models.calls["wav2lip"]
        assert (children(), LOAD.jobs) == (before, 0)
    events = await running
    result = events[-1]
    assert isinstance(result, RenderResult)
    assert result.frames == 150
    assert result.seconds["memory"] > 0
    assert Progress("memory", 0) in events
    assert (memory.free, LOAD.jobs) == (1 << 20, 0)


async def test_jobs_whose_memory_does_not_fit_together_run_one_after_another(
    still: AvatarRequest, tmp_path: Path
) -> None:
    memory, models = MemoryBudget(1 << 20), FakeInference()
    most = 0
    jobs = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        jobs.append(request(folder, still.face_path, still.audio_path, still=True))

    async def one(job: AvatarRequest) -> None:
        nonlocal most
        async with aclosing(render(job, models, memory=memory)) as events:
            async for _ in events:
                most = max(most, LOAD.jobs)

    await asyncio.gather(*map(one, jobs))
    assert most == 1
    assert memory.free == 1 << 20


async def test_a_job_that_is_cancelled_while_it_waits_for_memory_leaves_nothing(
    still: AvatarRequest, tmp_path: Path
) -> None:
    memory = MemoryBudget(1 << 20)
    with memory.reserve(1):
        running = asyncio.create_task(events_of(still, FakeInference(), memory))
        await until(lambda: memory.queued == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert memory.queued == 0
    assert memory.free == 1 << 20
    assert names(tmp_path) == {"face.png", "speech.wav"}
