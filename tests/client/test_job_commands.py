"""The commands for jobs, against a real gateway with a real database and a fake render."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from avatar_client import _cli
from tests.client.conftest import FACE, SPEECH, VIDEO

CLIENT = Path(__file__).parents[2] / "client"


async def process(*arguments: str) -> tuple[int, str]:
    """Run `avatar` as a process; return its exit status and its output."""
    environment = {"PYTHONPATH": str(CLIENT), "PATH": "/usr/bin:/bin"}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "avatar_client._cli", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(started.communicate(), 60)
    assert started.returncode is not None
    return started.returncode, out.decode().strip()


class Command:
    """Runs `avatar` in a thread of this process: the gateway runs on the event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status and the output."""
        status = await asyncio.to_thread(self._status, arguments)
        printed = self._capsys.readouterr()
        return status, printed.out.strip(), printed.err

    @staticmethod
    def _status(arguments: tuple[str, ...]) -> int:
        try:
            return _cli.main(list(arguments))
        except SystemExit as end:  # of wrong usage
            return int(end.code or 0)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    # only the main thread may handle signals; test_cli.py sends them to processes
    monkeypatch.setattr(_cli, "signal", SimpleNamespace(**{**vars(signal), "signal": lambda number, handler: None}))
    return Command(capsys)


async def test_the_commands_submit_watch_fetch_and_show_a_job(url: str, tmp_path: Path, command: Command) -> None:
    face, speech, out = tmp_path / "face.jpg", tmp_path / "speech.wav", tmp_path / "out.mp4"
    await asyncio.to_thread(face.write_bytes, FACE)
    await asyncio.to_thread(speech.write_bytes, SPEECH)
    status, job = await process("submit", str(face), str(speech), "--url", url, "--background", "White")
    assert status == 0
    watched = await command("watch", job, "--url", url)
    fetched = await command("fetch", job, "-o", str(out), "--url", url)
    assert (watched[0], fetched[0]) == (0, 0)
    assert f"{job} succeeded: 3 frames" in watched[1]
    assert out.read_bytes() == VIDEO
    assert f"{out}: 3 frames" in fetched[1]
    shown = await command("status", job, "--json", "--url", url)
    assert json.loads(shown[1])["state"] == "succeeded"
    canceled = await command("cancel", job, "--url", url)
    assert canceled[0] == 1  # it has ended
    assert "succeeded" in canceled[1]


async def test_the_commands_say_what_is_wrong(url: str, tmp_path: Path, command: Command) -> None:
    missing = "00000000-0000-4000-8000-000000000000"
    results = [
        await command("status", missing, "--url", url),
        await command("fetch", missing, "-o", str(tmp_path / "out.mp4"), "--url", url),
        await command("submit", "one-file", "--url", url),
        await command("submit", str(tmp_path / "none"), str(tmp_path / "none"), "--url", url),
    ]
    assert [status for status, _, _ in results] == [1, 1, 2, 1]
    assert all("no such job" in error for _, _, error in results[:2])
    assert "expected face and speech, got 1 files" in results[2][2]
    assert "No such file" in results[3][2]


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [("http://", "", "http://host:port expected"), ("http://127.0.0.1:9", "ключ", "AVATAR_API_KEY")],
)
@pytest.mark.parametrize("arguments", [["status", "x"], ["render", "file", "file", "-o", "out.mp4"]])
def test_a_url_or_a_key_that_is_none_is_wrong_usage(
    url: str,
    key: str,
    reason: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AVATAR_API_KEY", key)
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(FACE)
    assert _cli.main([*arguments, "--url", url]) == 2
    assert reason in capsys.readouterr().err
