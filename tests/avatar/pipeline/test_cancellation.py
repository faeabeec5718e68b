"""However a job ends, nothing of it stays: no process, no task, no file but those that were sent."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from avatar.errors import AvatarError, ClientError, Unavailable
from avatar.events import Progress, RenderResult
from avatar.faces.locator import AT_ONCE as DETECTIONS
from avatar.faces.locator import SAMPLED
from avatar.generation.generator import CONCURRENCY as SHOTS
from avatar.generation.generator import CHUNK_FRAMES
from avatar.options import Detection, Options
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background
from avatar.testing import FakeModels
from lipsync.boxes import SMOOTHING
from lipsync.tensors import S3FD_BATCH
from tests.support.media import (
    children,
    find_square,
    moving_square,
    names,
    other_tasks,
    request,
    run,
    tone,
    until,
    write_still,
    write_video,
    write_wav,
)

CALLS = ["mel_windows", "model_info", "segment", "detect_faces", "lipsync"]


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[dict[str, AvatarRequest]]:
    """A still with a new background and a video of 300 frames; afterwards nothing may be left of them."""
    voice = write_wav(tmp_path / "speech.wav", tone(12))
    still = write_still(tmp_path / "face.png")
    video = write_video(tmp_path / "face.mp4", moving_square(300))
    before = children()
    yield {
        "still": request(tmp_path, still, voice, still=True, background=Background.BLUE),
        "video": request(tmp_path, video, voice, still=False),
    }
    assert children() == before
    assert names(tmp_path) == {"speech.wav", "face.png", "face.mp4"}


def signal_child(argument: bytes, number: int) -> None:
    """Send a signal to the child process that was started with this argument."""
    (pid,) = [pid for pid in children() if argument in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, number)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["still", "video"])
async def test_a_model_that_fails_ends_the_job(jobs: dict[str, AvatarRequest], kind: str, call: str) -> None:
    if (kind, call) == ("video", "segment"):
        kind = "still"
    with pytest.raises(Unavailable, match="gone"):
        await run(jobs[kind], FakeModels(failures={call: Unavailable("gone")}))
    assert not other_tasks()


@pytest.mark.parametrize("call", CALLS)
async def test_a_job_cancelled_while_it_waits_for_a_model_leaves_nothing(
    jobs: dict[str, AvatarRequest], call: str
) -> None:
    models = FakeModels()
    models.gates[call] = asyncio.Event()
    task = asyncio.create_task(run(jobs["still" if call == "segment" else "video"], models))
    await until(lambda: bool(models.running[call]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not other_tasks()
    assert not models.running.total()


@pytest.mark.parametrize("frames", [1, 40])
async def test_a_job_closed_half_way_leaves_nothing(jobs: dict[str, AvatarRequest], frames: int) -> None:
    async with aclosing(render(jobs["video"], FakeModels(find_square))) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode" and event.done == frames:
                break
        assert children()
    assert not other_tasks()


async def test_frames_in_memory_are_bounded_however_slow_the_net(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeModels(find_square)
    models.gates["lipsync"] = asyncio.Event()
    exact = replace(jobs["video"], options=Options(detection=Detection.EXACT))  # so that detection counts all frames
    task = asyncio.create_task(run(exact, models))
    await until(lambda: models.running["lipsync"] == SHOTS)
    seen = -1
    while models.frames > seen:
        seen = models.frames
        await asyncio.sleep(0.2)
    bound = (SHOTS + 2) * CHUNK_FRAMES + SMOOTHING + (DETECTIONS + 1) * S3FD_BATCH + 300 // SAMPLED
    assert SHOTS * CHUNK_FRAMES <= seen <= bound < 300
    assert models.most_running["lipsync"] == SHOTS
    models.gates["lipsync"].set()
    rendered = await task
    assert models.frames == rendered.frames == 300
    rendered.path.unlink()


async def test_frames_leave_while_others_are_still_to_come(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeModels(find_square)
    at_first = None
    async with aclosing(render(jobs["video"], models)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode":
                at_first = models.frames
                break
    assert at_first is not None
    assert at_first < 300


async def test_an_encoder_that_dies_is_our_fault(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeModels(find_square)
    models.gates["lipsync"] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running["lipsync"]))
    signal_child(b"libx264", signal.SIGKILL)
    models.gates["lipsync"].set()
    with pytest.raises(AvatarError) as error:
        await task
    assert not isinstance(error.value, ClientError)
    assert error.value.status == 500
    assert not other_tasks()


async def test_a_decoder_that_is_killed_is_our_fault(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeModels(find_square)
    models.gates["lipsync"] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running["lipsync"]))
    signal_child(b"rawvideo\0-pix_fmt", signal.SIGKILL)
    models.gates["lipsync"].set()
    with pytest.raises(AvatarError) as error:
        await task
    assert error.value.status == 500


@pytest.mark.parametrize(("argument", "call"), [(b"libx264", "lipsync"), (b"rawvideo\0-pix_fmt", "lipsync")])
async def test_an_ffmpeg_that_stands_still_does_not_stop_the_event_loop(
    jobs: dict[str, AvatarRequest], argument: bytes, call: str
) -> None:
    models = FakeModels(find_square)
    models.gates[call] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running[call]))
    signal_child(argument, signal.SIGSTOP)
    freed = threading.Timer(20, signal_child, (argument, signal.SIGCONT))  # so that a loop that stopped fails the test
    freed.start()
    models.gates[call].set()
    for _ in range(50):  # the job goes on until all of its pipe's room is used
        await asyncio.sleep(0.01)
    assert freed.is_alive()
    assert not task.done()
    freed.cancel()
    signal_child(argument, signal.SIGCONT)
    (await task).path.unlink()


async def test_frames_go_through_pipes_and_no_file_is_made_but_the_result(jobs: dict[str, AvatarRequest]) -> None:
    seen: set[str] = set()
    sent = names(jobs["video"].folder)
    async with aclosing(render(jobs["video"], FakeModels(find_square))) as events:
        async for event in events:
            seen |= names(jobs["video"].folder) - sent
            if isinstance(event, RenderResult):
                assert seen == {event.path.name, "speech.f32"}  # the second one is gone again
                event.path.unlink()


async def test_a_jobs_log_lines_name_its_request(
    jobs: dict[str, AvatarRequest], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "avatar")
    (await run(jobs["still"], FakeModels())).path.unlink()
    with pytest.raises(Unavailable):
        await run(jobs["video"], FakeModels(failures={"lipsync": Unavailable("gone")}))
    requests = [vars(record)["request_id"] for record in caplog.records if record.name == "avatar"]
    assert len(requests) >= 2
    assert set(requests) == {"test"}
