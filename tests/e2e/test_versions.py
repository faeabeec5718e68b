"""Versions are tried, activated and rolled back while a real Triton serves them, and no call fails."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from avatar.inference.grpc_client import GrpcInferenceClient
from avatar.inference.protocol import ModelInfo
from avatar.options import Generator
from embedded.server import Triton
from export.build import trials, versions
from lipsync.tensors import S3FD, WAV2LIP
from tests.support import tiny_exports, tiny_repository
from tests.support.triton_calls import caller
from tests.support.triton_streams import make_request, send_request, stub

SECONDS = 120.0  # until the test gives up waiting; Triton polls every second
FACES = np.full((1, 96, 96, 3), 200, np.uint8)
WINDOWS = np.full((1, 80, 16), -3.0, np.float32)
FRAMES = np.full((1, 64, 64, 3), 90, np.uint8)
PAUSE = 0.02  # between calls: leaves most of two cores to the other test workers
OLD, NEW = 167, 187  # gray levels of the mouth of the two generators
# models that take seconds to start, and no job of this test calls
UNUSED = ("live", "wav2lip_gan", "lipsync", "lipsync_gan", "lipsync_clip", "face_crop", "face_paste")
PICTURE = (Path(__file__).parents[2] / "samples" / "face.png").read_bytes()
SPEECH = (Path(__file__).parents[2] / "samples" / "speech.wav").read_bytes()


def quiet(_: str) -> None:
    pass


class Jobs:
    """Jobs that call again and again, and callers who know no versions; what they get, and what fails."""

    def __init__(self, client: GrpcInferenceClient) -> None:
        self._client, self._count = client, 0
        self.info = ModelInfo()
        self.failures: list[Exception] = []
        self.got: set[tuple[str, int]] = set()  # who, and the gray level of the mouth

    async def job(self) -> None:
        self._count += 1
        self.info = await self._client.model_info(Generator.WAV2LIP)
        chosen = self.info.chosen(f"job-{self._count}")
        client = self._client.pinned(chosen.versions) if chosen.versions else self._client
        await client.detect_faces(FRAMES)
        for _ in range(3):
            mouths = await client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)
            self.got.add(("tried" if chosen.versions else "active", int(mouths[0, 68, 48, 0])))
        await asyncio.sleep(PAUSE)

    async def plain(self) -> None:
        mouths = await self._client.wav2lip(FACES, WINDOWS, Generator.WAV2LIP)
        self.got.add(("plain", int(mouths[0, 68, 48, 0])))
        await asyncio.sleep(PAUSE)

    async def until(self, done: Callable[[], bool]) -> set[tuple[str, int]]:
        """Wait for what has been seen since the last call; return all of that."""
        self.got.clear()
        async with asyncio.timeout(SECONDS):
            while not done() and not self.failures:  # noqa: ASYNC110 - the results of other tasks
                await asyncio.sleep(0.05)
        assert self.failures == []
        return set(self.got)


@asynccontextmanager
async def jobs_at(address: str) -> AsyncIterator[Jobs]:
    client = GrpcInferenceClient(address)
    jobs, stopped = Jobs(client), False

    async def repeat(call: Callable[[], AsyncIterator[None]]) -> None:
        while not stopped:
            try:
                await call()  # type: ignore[misc]
            except Exception as error:
                jobs.failures.append(error)

    tasks = [asyncio.create_task(repeat(call)) for call in (jobs.job, jobs.job, jobs.plain)]  # type: ignore[arg-type]
    try:
        yield jobs
    finally:
        stopped = True
        await asyncio.gather(*tasks)
        await client.close()


def staged(repository: Path) -> dict[str, Path]:
    """Return new exports of the generator and of the detector."""
    generator, detector = tiny_repository._generator(depth=0.4), tiny_repository._detector()
    folder = repository.parent
    return {
        "wav2lip": tiny_exports.stage(WAV2LIP, generator, folder / "staged-wav2lip", seed=2),
        "s3fd": tiny_exports.stage(S3FD, detector, folder / "staged-s3fd", seed=2),
    }


def runs(address: str, model: str) -> dict[str, int]:
    """Return how many requests each version of a model has answered."""
    with caller(address) as call:
        statistics = call.client.get_inference_statistics(model).model_stats
    return {each.version: each.inference_stats.success.count for each in statistics}


async def test_versions_are_tried_activated_and_rolled_back_without_a_failing_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVATAR_CACHE_DIR", str(tmp_path / "cache"))  # an entry of another test would be used
    repository = tmp_path / "repository"
    tiny_exports.write(repository)
    for name in UNUSED:
        shutil.rmtree(repository / name)
    with Triton(repository, poll=1) as triton:
        async with jobs_at(triton.grpc_address) as jobs:
            await jobs.until(lambda: {("plain", OLD), ("active", OLD)} <= jobs.got)

            await asyncio.to_thread(tiny_exports.begin_trial, repository, staged(repository), 0.5)
            got = await jobs.until(lambda: {("plain", OLD), ("active", OLD), ("tried", NEW)} <= jobs.got)
            assert got == {("plain", OLD), ("active", OLD), ("tried", NEW)}

            await asyncio.to_thread(trials.set_share, repository, 1.0, quiet)
            await jobs.until(lambda: jobs.info.trial is not None and jobs.info.trial.share == 1)
        tried = {name: str(versions.list_versions(repository / name)[0].number) for name in ("wav2lip", "s3fd")}
        before = {name: runs(triton.grpc_address, name)[version] for name, version in tried.items()}
        with stub(triton.grpc_address) as server:
            responses = await asyncio.to_thread(
                send_request, server, make_request("avatar", "job", face_file=PICTURE, audio_file=SPEECH)
            )
        assert not responses.error
        assert all(runs(triton.grpc_address, name)[version] > before[name] for name, version in tried.items())

        async with jobs_at(triton.grpc_address) as jobs:
            await jobs.until(lambda: ("tried", NEW) in jobs.got)
            await asyncio.to_thread(trials.rollback, repository, quiet)
            await jobs.until(lambda: ("active", OLD) in jobs.got)
            got = await jobs.until(lambda: {("plain", OLD), ("active", OLD)} <= jobs.got)
            assert ("plain", NEW) not in got

            await asyncio.to_thread(tiny_exports.begin_trial, repository, staged(repository), 0.0)
            await asyncio.to_thread(trials.activate, repository, quiet)
            await jobs.until(lambda: {("plain", NEW), ("active", NEW)} <= jobs.got)
            got = await jobs.until(lambda: {("plain", NEW), ("active", NEW)} <= jobs.got)
            assert got == {("plain", NEW), ("active", NEW)}

            await asyncio.to_thread(trials.rollback, repository, quiet)
            await jobs.until(lambda: {("plain", OLD), ("active", OLD)} <= jobs.got)
