"""The examples of jobs: one that is called back, and one that goes through a folder."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from demo.stack import Ports
from tests.examples.conftest import NOWHERE, Run
from tests.support.gateway_process import WEBHOOK_SECRET, Gateway
from tests.support.media import read_video
from tests.support.sample_files import FRAMES


def report(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "report.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture
def receive(run: Run, job_gateway: Gateway) -> Run:
    """Runs the example of a webhook, with a receiver on a free port."""

    def receive(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        port = Ports.free().gateway
        where = ("--listen", f"127.0.0.1:{port}", "--hook", f"http://127.0.0.1:{port}/hook", "--wait", "120")
        settings = {"AVATAR_URL": job_gateway.url, "AVATAR_WEBHOOK_SECRET": WEBHOOK_SECRET, **settings}
        return run("job_with_webhook.py", *arguments, *where, **settings)

    return receive


def test_the_receiver_of_a_webhook_fetches_the_video(receive: Run, tmp_path: Path) -> None:
    done = receive("face.png", "speech.wav", "out.mp4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"out.mp4: {FRAMES} frames\n"
    assert re.match(r"job [0-9a-f-]{36} is queued\n", done.stderr)
    assert len(read_video(tmp_path / "out.mp4")) == FRAMES


def test_the_receiver_of_a_webhook_says_why_a_job_failed(receive: Run, tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(b"no sound")
    done = receive("face.png", "speech.wav", "out.mp4")
    assert done.returncode == 1
    assert "job.failed: audio_file: " in done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"AVATAR_WEBHOOK_SECRET": ""}, "AVATAR_WEBHOOK_SECRET is not set"),
        ({"AVATAR_URL": NOWHERE}, f"{NOWHERE} does not answer"),
    ],
)
def test_the_receiver_of_a_webhook_needs_a_secret_and_a_service(
    receive: Run, settings: dict[str, str], reason: str
) -> None:
    done = receive("face.png", "speech.wav", "out.mp4", **settings)
    assert done.returncode == 1
    assert done.stderr.startswith(reason)
    assert "Traceback" not in done.stderr


def test_a_folder_becomes_videos_and_a_second_run_makes_only_what_is_missing(
    run: Run, job_gateway: Gateway, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("anna", "bert", "carl"):
        shutil.copy(tmp_path / "face.png", clips / f"{name}.png")
    for name in ("anna", "dora"):
        shutil.copy(tmp_path / "speech.wav", clips / f"{name}.wav")
    (clips / "bert.wav").write_bytes(b"no sound")
    arguments = ("clips", "videos", "--at-once", "2", "--set", "quality=draft")
    first = run("batch_folder.py", *arguments, AVATAR_URL=job_gateway.url)
    assert first.returncode == 1, first.stderr
    assert "1 of 4 videos are in videos" in first.stdout
    rows = report(tmp_path / "videos")
    assert {name: row["state"] for name, row in rows.items()} == {
        "anna": "succeeded",
        "bert": "failed",
        "carl": "left out",
        "dora": "left out",
    }
    assert (rows["anna"]["frames"], rows["dora"]["reason"]) == (str(FRAMES), "there is no face of this name")
    assert rows["bert"]["reason"].startswith("audio_file: ")
    assert len(read_video(tmp_path / "videos" / "anna.mp4")) == FRAMES

    shutil.copy(tmp_path / "speech.wav", clips / "bert.wav")
    for name in ("carl.png", "dora.wav"):
        (clips / name).unlink()
    second = run("batch_folder.py", *arguments, AVATAR_URL=job_gateway.url)
    assert second.returncode == 0, second.stderr
    assert "2 of 2 videos are in videos" in second.stdout
    again = report(tmp_path / "videos")
    assert {name: row["state"] for name, row in again.items()} == {"anna": "was there", "bert": "succeeded"}


def test_a_folder_reports_a_service_that_does_not_answer_and_a_wrong_option(run: Run, tmp_path: Path) -> None:
    (tmp_path / "face.png").rename(tmp_path / "anna.png")
    (tmp_path / "speech.wav").rename(tmp_path / "anna.wav")
    done = run("batch_folder.py", ".", "videos", "--set", "qualty=draft", AVATAR_URL=NOWHERE)
    assert done.returncode == 1
    assert report(tmp_path / "videos")["anna"]["reason"].startswith("unknown option qualty")
    assert run("batch_folder.py", "nowhere", "videos").returncode == 2
