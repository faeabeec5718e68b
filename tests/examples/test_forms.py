"""The examples that post a form save the video, and say in a sentence what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, NOWHERE, Run
from tests.support.gateway_process import Gateway
from tests.support.media import read_video
from tests.support.sample_files import FRAMES

FILES = ("face.png", "speech.wav", "out.mp4")
WITH_OPTIONS = ("post_form.py", "post_form.mjs", "post_form.sh")
ALL = (*WITH_OPTIONS, "post_form_stdlib.py")


@pytest.mark.parametrize("name", ALL)
def test_a_form_is_posted_and_the_video_saved(name: str, run: Run, gateway: Gateway, tmp_path: Path) -> None:
    options = ("background=Green", "quality=draft", "odd=x") if name in WITH_OPTIONS else ()
    done = run(name, *FILES, *options, AVATAR_URL=gateway.url)
    assert done.returncode == 0, done.stderr
    assert "out.mp4" in done.stdout
    frames = read_video(tmp_path / "out.mp4")
    assert len(frames) == FRAMES
    if options:
        blue, green, red = frames[0, :20, :20].reshape(-1, 3).mean(0)
        assert green > 200 > 60 > max(blue, red)
    if options and name != "post_form.sh":
        assert "X-Avatar-Ignored-Fields: odd" in done.stderr
        assert "X-Avatar-Stand-Ins: " in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", ALL)
def test_an_error_of_the_service_is_a_sentence(name: str, run: Run, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(b"")
    done = run(name, *FILES, AVATAR_URL=gateway.url)
    assert done.returncode == (22 if name == "post_form.sh" else 1)
    assert "audio_file: the file is empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("name", ALL)
def test_a_service_that_does_not_answer_is_a_sentence(name: str, run: Run, tmp_path: Path) -> None:
    done = run(name, *FILES, AVATAR_URL=NOWHERE)
    assert done.returncode in (1, 7)
    assert "127.0.0.1" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_and_missing_arguments_are_sentences(name: str, run: Run) -> None:
    missing = run(name, "nobody.png", "speech.wav", "out.mp4", AVATAR_URL=NOWHERE)
    assert missing.returncode != 0
    assert missing.stderr.count("\n") == 1
    usage = run(name, "face.png")
    assert usage.returncode != 0
    assert usage.stderr.startswith("usage: ")
    assert usage.stderr.strip().endswith(("OUT", "[FIELD=VALUE ...]"))


def test_every_example_is_short_and_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.rglob("*"):
        if path.suffix in (".py", ".mjs", ".sh", ".html") and "node_modules" not in path.parts:
            assert len(path.read_text("utf-8").splitlines()) <= 120, path
        if path.parent == EXAMPLES and path.name not in ("README.md", "__pycache__"):
            assert f"`{path.name}{'/' if path.is_dir() else ''}`" in table, path
