"""Whatever ends a job, it leaves no process, no task, and no file except those of the request."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from avatar.errors import AvatarError, ClientError, Unavailable
from avatar.events import Progress, RenderResult
from avatar.faces import detection
from avatar.faces.sampling import MIN_STEP
from avatar.generation import generator
from avatar.generation.chunks import max_chunk_frames
from avatar.inference.protocol import ModelInfo
from avatar.options import Detection, Options
from avatar.pipeline import render
from avatar.request import AvatarRequest, Background
from avatar.testing import FakeInference
from lipsync.boxes import SMOOTHING
from tests.support.media import (
    children,
    file_of,
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

FRAMES = 200  # of the video; more than may be in memory at once
CHUNKS = generator.CONCURRENCY
NETS = ModelInfo()
CHUNK_FRAMES = max_chunk_frames(NETS.generator_net)
CALLS = ["mel_windows", "model_info", "segment", "detect_faces", "wav2lip"]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a still, a video, and speech of the length of the video."""
    folder = tmp_path_factory.mktemp("media")
    write_wav(folder / "speech.wav", tone(FRAMES / 25))
    write_still(folder / "face.png")
    write_video(folder / "face.mp4", moving_square(FRAMES))
    return folder


@pytest.fixture
def jobs(media: Path, tmp_path: Path) -> Iterator[dict[str, AvatarRequest]]:
    """Return jobs for a still with a new background and for a video, and check what they leave."""
    speech, still, video = (
        Path(shutil.copy(media / name, tmp_path)) for name in ("speech.wav", "face.png", "face.mp4")
    )
    before = children()
    yield {
        "still": request(tmp_path, still, speech, still=True, background=Background.BLUE),
        "video": request(tmp_path, video, speech, still=False),
    }
    assert children() == before
    assert names(tmp_path) == {"speech.wav", "face.png", "face.mp4"}


def signal_child(argument: bytes, number: int) -> None:
    """Send a signal to the child process that was started with this argument, and does not read samples."""
    found = []
    for pid in children():
        with suppress(OSError):  # it has ended
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            found += [pid] if argument in command and b"select=" not in command else []
    (pid,) = found
    os.kill(pid, number)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["still", "video"])
async def test_a_model_that_fails_ends_the_job(jobs: dict[str, AvatarRequest], kind: str, call: str) -> None:
    if (kind, call) == ("video", "segment"):
        kind = "still"
    with pytest.raises(Unavailable, match="gone"):
        await run(jobs[kind], FakeInference(failures={call: Unavailable("gone")}))
    assert not other_tasks()


@pytest.mark.parametrize("call", CALLS)
async def test_a_job_cancelled_while_it_waits_for_a_model_leaves_nothing(
    jobs: dict[str, AvatarRequest], call: str
) -> None:
    models = FakeInference()
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
    async with aclosing(render(jobs["video"], FakeInference(find_square))) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode" and event.done == frames:
                break
        assert children()
    assert not other_tasks()


async def test_the_frames_in_memory_are_bounded_if_the_model_is_slow(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeInference(find_square)
    models.gates["wav2lip"] = asyncio.Event()
    exact = replace(jobs["video"], options=Options(detection=Detection.EXACT))  # so that detection counts all frames
    task = asyncio.create_task(run(exact, models))
    await until(lambda: models.running["wav2lip"] == CHUNKS)
    seen = -1
    while models.frame_count > seen:
        seen = models.frame_count
        await asyncio.sleep(0.2)
    bound = (
        (CHUNKS + 2) * CHUNK_FRAMES
        + SMOOTHING
        + (detection.CONCURRENCY + 1) * NETS.detector_net.max_batch
        + FRAMES // MIN_STEP
    )
    assert CHUNKS * CHUNK_FRAMES <= seen <= bound < FRAMES
    assert models.max_running["wav2lip"] == CHUNKS
    models.gates["wav2lip"].set()
    rendered = await task
    assert models.frame_count == rendered.frames == FRAMES
    file_of(rendered).unlink()


async def test_the_first_frame_is_encoded_before_the_last_one_is_decoded(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeInference(find_square)
    at_first = None
    async with aclosing(render(jobs["video"], models)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.stage == "encode":
                at_first = models.frame_count
                break
    assert at_first is not None
    assert at_first < 300


async def test_a_killed_encoder_is_a_fault_of_the_machine(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeInference(find_square)
    models.gates["wav2lip"] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running["wav2lip"]))
    signal_child(b"libx264", signal.SIGKILL)
    models.gates["wav2lip"].set()
    with pytest.raises(AvatarError) as error:
        await task
    assert not isinstance(error.value, ClientError)
    assert error.value.status == 503
    assert not other_tasks()


async def test_a_killed_decoder_is_a_fault_of_the_machine(jobs: dict[str, AvatarRequest]) -> None:
    models = FakeInference(find_square)
    models.gates["wav2lip"] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running["wav2lip"]))
    signal_child(b"rawvideo\0-pix_fmt", signal.SIGKILL)
    models.gates["wav2lip"].set()
    with pytest.raises(AvatarError) as error:
        await task
    assert error.value.status == 503


@pytest.mark.parametrize(("argument", "call"), [(b"libx264", "wav2lip"), (b"rawvideo\0-pix_fmt", "wav2lip")])
async def test_a_stopped_ffmpeg_does_not_block_the_event_loop(
    jobs: dict[str, AvatarRequest], argument: bytes, call: str
) -> None:
    models = FakeInference(find_square)
    models.gates[call] = asyncio.Event()
    task = asyncio.create_task(run(jobs["video"], models))
    await until(lambda: bool(models.running[call]))
    signal_child(argument, signal.SIGSTOP)
    resumed = threading.Timer(
        20, signal_child, (argument, signal.SIGCONT)
    )  # so that a blocked event loop fails the test
    resumed.start()
    models.gates[call].set()
    for _ in range(50):  # the job continues until the buffer of the pipe is full
        await asyncio.sleep(0.01)
    assert resumed.is_alive()
    assert not task.done()
    resumed.cancel()
    signal_child(argument, signal.SIGCONT)
    file_of(await task).unlink()


async def test_frames_are_piped_and_the_result_is_the_only_new_file(jobs: dict[str, AvatarRequest]) -> None:
    seen: set[str] = set()
    sent = names(jobs["video"].folder)
    async with aclosing(render(jobs["video"], FakeInference(find_square))) as events:
        async for event in events:
            seen |= names(jobs["video"].folder) - sent
            if isinstance(event, RenderResult):
                assert seen == {file_of(event).name}
                file_of(event).unlink()


async def test_log_lines_of_a_job_have_its_request_id(
    jobs: dict[str, AvatarRequest], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "avatar")
    file_of(await run(jobs["still"], FakeInference())).unlink()
    with pytest.raises(Unavailable):
        await run(jobs["video"], FakeInference(failures={"wav2lip": Unavailable("gone")}))
    requests = [vars(record)["request_id"] for record in caplog.records if record.name == "avatar"]
    assert len(requests) >= 2
    assert set(requests) == {"test"}
