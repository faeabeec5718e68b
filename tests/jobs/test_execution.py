"""One job with the real pipeline: its files come from the store, from URLs and from kept faces; its video is stored."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from avatar.errors import Busy, FaceNotFound, InvalidField, StorageFault, TooLarge
from avatar.pipeline import render
from avatar.resources.workspace import Workspace
from avatar.testing import FakeInference
from jobs.errors import ResultNotSent
from jobs.execution import Execution, error_of
from jobs.net.client import UrlClient
from jobs.records import Job, JobClass, JobError, JobState, Progress, StoredFile
from jobs.settings import ServiceSettings
from jobs.store import Store, Stored
from tests.support.http_origin import Origin, reply
from tests.support.media import read_video, tone, write_still, write_wav

FORM = {"avatarFileType": "png", "background": "From Input"}


@dataclass
class Bench:
    """An execution with its store, and the progress that its jobs report."""

    execution: Execution
    folder: Path
    progress: list[Progress] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return self.execution.store

    async def run(self, job: Job) -> Any:
        return await self.execution.run(job, self.progress.append)

    async def files(self) -> list[str]:
        return sorted([blob.key async for blob in self.store.list()])

    async def job(self, *stored: str, **changes: Any) -> Job:
        """Return a job whose `stored` files are in the store."""
        identity = uuid4()
        inputs = {}
        for name in stored:
            key = f"inputs/{identity}/{name}"
            file = await self.store.put_file(key, self.folder / name)
            inputs[name] = StoredFile(key, file.size, file.sha256)
        values: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
        values |= {
            "id": identity,
            "number": 1,
            "tenant": "",
            "job_class": JobClass.INTERACTIVE,
            "state": JobState.RUNNING,
            "attempt": 2,
            "given_back": 0,
            "form": FORM,
            "inputs": inputs,
            "urls": {},
            "webhook_events": (),
            "request_id": "the-request",
            "created_at": datetime.now(UTC),
        }
        return Job(**values | changes)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    write_still(tmp_path / "face.png")
    (tmp_path / "face.png").rename(tmp_path / "face_file")
    write_wav(tmp_path / "audio_file", tone(0.2))
    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work")
    workspace.open()
    settings = ServiceSettings(
        url_allow_http=True, url_allowed_hosts=("127.0.0.1:*",), url_seconds=10, max_upload_bytes=100_000
    )
    async with UrlClient(settings.url_rules, retry_pause=0.01) as urls:
        store = Store.open(str(tmp_path / "store"))
        yield Bench(Execution(store, urls, FakeInference(), partial(render), settings, workspace), tmp_path)
    assert list(workspace.root.iterdir()) == []
    workspace.close()


async def test_the_video_of_a_job_is_in_the_store_under_its_attempt(bench: Bench) -> None:
    job = await bench.job("face_file", "audio_file")
    result = await bench.run(job)
    assert result.file.key == f"results/{job.id}/2.mp4"
    video = bench.folder / "video.mp4"
    await bench.store.fetch_file(result.file.key, video)
    assert len(read_video(video)) == result.frames == 5
    assert (result.container, result.fps, result.duration, result.encoder) == ("mp4", 25.0, 0.2, "x264")
    assert result.file.size == video.stat().st_size
    assert result.file.sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    stages = [each.stage for each in bench.progress]
    assert stages[0] == "fetch" and stages[-1] == "store" and "encode" in stages
    assert Progress("encode", 5, 5) in bench.progress


async def test_files_at_urls_are_fetched(bench: Bench) -> None:
    face, speech = ((bench.folder / name).read_bytes() for name in ("face_file", "audio_file"))
    async with Origin({"/face": reply(face), "/speech": reply(speech)}) as origin:
        job = await bench.job(urls={"face_file": f"{origin.url}/face", "audio_file": f"{origin.url}/speech"})
        assert (await bench.run(job)).frames == 5


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [("/missing", InvalidField, "face_url: "), ("/large", TooLarge, "face_url: the file of the URL has more than")],
)
async def test_a_url_that_cannot_be_used_is_named_by_its_field(
    bench: Bench, path: str, error: type[Exception], text: str
) -> None:
    async with Origin({"/large": reply(bytes(100_001))}) as origin:
        job = await bench.job("audio_file", urls={"face_file": origin.url + path})
        with pytest.raises(error, match=text):
            await bench.run(job)


async def test_a_kept_face_is_used(bench: Bench) -> None:
    avatar = uuid4()
    await bench.store.put_file(f"avatars/{avatar}", bench.folder / "face_file")
    assert (await bench.run(await bench.job("audio_file", avatar=avatar))).frames == 5
    with pytest.raises(InvalidField, match="avatar: the kept face was removed"):
        await bench.run(await bench.job("audio_file", avatar=uuid4()))


async def test_the_result_is_sent_to_its_url(bench: Bench) -> None:
    async with Origin({"/put?signature=secret": reply(b""), "/put": reply(b"")}) as origin:
        job = await bench.job("face_file", "audio_file", result_url=f"{origin.url}/put?signature=secret")
        result = await bench.run(job)
        (request,) = origin.requests
    assert request.method == "PUT" and request.headers["content-type"] == "video/mp4"
    assert len(request.body) == result.file.size
    assert result.sent_to == f"{origin.url}/put"
    assert bench.progress[-1].stage == "send"


async def test_a_result_that_its_url_does_not_take_is_an_error_and_leaves_no_file(bench: Bench) -> None:
    async with Origin({}) as origin:
        job = await bench.job("face_file", "audio_file", result_url=f"{origin.url}/put")
        with pytest.raises(ResultNotSent, match=r"result_url: .*404"):
            await bench.run(job)
    assert not [key for key in await bench.files() if key.startswith("results/")]


async def test_a_job_that_is_cancelled_while_its_result_is_written_leaves_no_result(bench: Bench) -> None:
    writing = asyncio.Event()

    class Slow(Store):
        async def put_file(self, *arguments: Any, **named: Any) -> Stored:
            writing.set()
            await asyncio.sleep(0.2)
            return await super().put_file(*arguments, **named)

    job = await bench.job("face_file", "audio_file")
    own = bench.execution
    execution = Execution(
        Slow.open(str(bench.folder / "store")), own.urls, own.models, own.render, own.settings, own.workspace
    )
    task = asyncio.create_task(execution.run(job, bench.progress.append))
    await writing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [key for key in await bench.files() if key.startswith("results/")]


async def test_a_store_without_the_files_of_the_job_is_a_fault_of_the_machine(bench: Bench) -> None:
    job = await bench.job("face_file", "audio_file")
    await bench.store.delete([job.inputs["audio_file"].key])
    with pytest.raises(StorageFault, match="the store lacks a file of the job"):
        await bench.run(job)


async def test_a_bad_field_of_the_form_is_named(bench: Bench) -> None:
    job = await bench.job("face_file", "audio_file", form={**FORM, "background": "Mauve"})
    with pytest.raises(InvalidField, match="background: "):
        await bench.run(job)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidField("face_file", "no"), JobError("invalid_field", "face_file: no", 400)),
        (TooLarge("too large"), JobError("too_large", "too large", 413)),
        (FaceNotFound(), JobError("face_not_found", str(FaceNotFound()), 400)),
        (ResultNotSent("result_url: no"), JobError("result_url_failed", "result_url: no", 400)),
        (Busy("full"), JobError("unavailable", "full", 503)),
        (StorageFault("disk"), JobError("unavailable", str(StorageFault("disk")), 503)),
        (OSError(28, "No space"), JobError("unavailable", str(StorageFault("no space left on the disk")), 503)),
        (ZeroDivisionError("secret"), JobError("internal_error", "internal error", 500)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_every_exception_has_a_code(error: Exception, expected: JobError) -> None:
    assert error_of(error) == expected
