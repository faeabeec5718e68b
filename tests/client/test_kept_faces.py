"""The client's kept faces against a real gateway with a real database and fake models."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar_client import AsyncAvatarJobs, AvatarJobs, InvalidRequest, KeptFace, Unavailable, _cli
from avatar_client._console import Console
from tests.client.conftest import SPEECH, call
from tests.support.live_gateway import proxy_to
from tests.support.media import write_still


@pytest.fixture
def face(tmp_path: Path) -> Path:
    return write_still(tmp_path / "face.png")


@pytest.fixture
def content(face: Path) -> bytes:
    return face.read_bytes()


async def test_a_face_is_kept_used_listed_and_removed(url: str, face: Path, content: bytes, tmp_path: Path) -> None:
    jobs = AvatarJobs(url)
    steps: list[str] = []
    kept = await call(jobs.keep_face, face, lambda stage, done, total: steps.append(stage))
    assert (kept.face_type, kept.frames, kept.size) == ("png", None, len(content))
    assert kept.width > 0 < kept.height
    assert "upload" in steps
    assert await call(jobs.get_face, kept.id) == kept
    job = await call(jobs.submit, None, SPEECH, avatar=kept.id)
    assert (await call(jobs.wait, job.id)).state == "succeeded"
    await call(jobs.result, job.id, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == content + b"|" + SPEECH
    second = await call(jobs.keep_face, content)
    listed: list[KeptFace] = await call(list, jobs.list_faces())
    assert listed == [second, kept]
    await call(jobs.remove_face, kept.id)
    with pytest.raises(InvalidRequest) as gone:
        await call(jobs.get_face, kept.id)
    assert (gone.value.code, gone.value.error_code) == (404, "avatar_not_found")


async def test_what_is_no_face_is_rejected(url: str, tmp_path: Path) -> None:
    jobs = AvatarJobs(url)
    with pytest.raises(InvalidRequest, match="face_file") as rejected:
        await call(jobs.keep_face, b"no image")
    assert rejected.value.error_code == "invalid_field"
    with pytest.raises(ValueError, match="from a file or from bytes"):
        await call(jobs.keep_face, "https://example.com/face.png")
    with pytest.raises(FileNotFoundError):
        await call(jobs.keep_face, tmp_path / "none.png")


async def test_a_face_whose_answer_is_lost_is_not_kept_twice(url: str, face: Path) -> None:
    async with proxy_to(url) as proxy:
        proxy.cut_after = [10]
        with pytest.raises(Unavailable):
            await call(AvatarJobs(proxy.url).keep_face, face)
        assert len(proxy.heads) == 1


async def test_the_asynchronous_client_keeps_faces_too(url: str, face: Path) -> None:
    jobs = AsyncAvatarJobs(url)
    kept = await jobs.keep_face(face)
    assert [each async for each in jobs.list_faces()] == [kept]
    assert await jobs.get_face(kept.id) == kept
    await jobs.remove_face(kept.id)
    assert [each async for each in jobs.list_faces()] == []


async def test_the_commands_keep_list_and_forget_a_face(
    url: str, face: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        options = _cli._parser().parse_args([*arguments, "--url", url])  # `main` needs the main thread, for signals
        status: int = options.run(options, Console(progress=False))
        return status, capsys.readouterr().out.strip()

    status, kept = await call(command, "keep", str(face))
    assert status == 0
    listed = await call(command, "faces")
    assert listed[0] == 0
    assert listed[1].startswith(f"{kept} png ")
    assert await call(command, "forget", kept) == (0, "")
    assert await call(command, "faces") == (0, "")
    with pytest.raises(InvalidRequest):
        await call(command, "forget", kept)
