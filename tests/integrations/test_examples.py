"""The examples and the pages of both adapters run on a live server, with a room or a transport in this process."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedded.server import Triton
from tests.docs.pages import PAGES, blocks, command_lines
from tests.integrations.libraries import load, old_names_allowed
from tests.support.media import read_sound, read_video

GRPC = "127.0.0.1:8001"  # the default of `make up`
SPEECH, PAUSE = 0.6, 0.2  # seconds
PAGE = {"livekit": "docs/guide/livekit.md", "pipecat": "docs/guide/pipecat.md"}


@pytest.mark.parametrize("library", PAGE)
async def test_the_command_of_the_page_records_a_conversation(
    library: str, triton: Triton, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (words,) = (each for each in command_lines(PAGES[PAGE[library]]) if each[0] == "python")
    example = load(words[2])
    monkeypatch.chdir(tmp_path)
    own = ["--server", triton.grpc_address, "--seconds", str(SPEECH), "--pause", str(PAUSE)]
    await example.main(example.parse([*words[3:], *own]))
    output = capsys.readouterr().out
    assert f"{library}.mp4" in output
    print(output)
    recorded = tmp_path / f"{library}.mp4"
    assert len(read_video(recorded)) > 25 * SPEECH / 2  # of at least twice as many; a busy viewer leaves some out
    loud = np.abs(read_sound(recorded)) > 0.001
    assert loud.sum() / 16_000 > 0.3 * SPEECH  # the rest of it are pauses between words
    if library == "livekit":
        heard = [float(each) for each in re.findall(r"([\d.]+) s of speech", output)]
        assert heard[0] < SPEECH <= heard[1] < SPEECH + 0.1


async def test_the_code_of_the_livekit_page_gives_an_agent_a_face(
    triton: Triton, tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("integrations.livekit.examples.agent_in_fake_room")
    names = code(PAGE["livekit"], triton, tmp_path, samples, monkeypatch)
    tracks: list[Any] = []
    room = example.FakeRoom(SimpleNamespace(watch=tracks.append))
    session = SimpleNamespace(output=SimpleNamespace(audio=None))
    runner = await names["give_a_face"](session, room)
    example_speech, rate = example.read_wav(samples / "speech.wav")
    await example.speak(session.output.audio, example_speech[: rate // 2], rate)
    assert (await session.output.audio.wait_for_playout()).playback_position == pytest.approx(0.5, abs=0.1)
    assert len(tracks) == 2
    await runner.aclose()
    await runner._video_gen.aclose()


async def test_the_code_of_the_pipecat_page_makes_a_pipeline(
    triton: Triton, tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = load("tests.integrations.pipecat_bot")
    names = code(PAGE["pipecat"], triton, tmp_path, samples, monkeypatch)
    pipeline = names["pipeline_of"](output=bot.Sink(bot.asyncio.Event()))
    assert [type(each).__name__ for each in pipeline.processors][1:-1] == ["AvatarVideoService", "Sink"]
    assert names["PARAMS"].video_out_is_live


def code(page: str, triton: Triton, folder: Path, samples: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python block of a page, beside a face.jpg; return its names."""
    (block,) = blocks("python", PAGES[page])
    (folder / "face.jpg").symlink_to(samples / "face.png")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    assert GRPC in block
    with old_names_allowed():
        exec(block.replace(GRPC, triton.grpc_address), names)  # noqa: S102 - our own page
    return names
