"""The commands of the guide to jobs run against a gateway with a database."""

from __future__ import annotations

import json
import re
from pathlib import Path

from embedded.server import Triton
from tests.docs.pages import PAGES, ROOT, blocks
from tests.docs.test_examples import shell
from tests.support.gateway_process import Gateway
from tests.support.media import read_video

PAGE = PAGES["docs/guide/jobs.md"]


def test_the_commands_run_a_job_and_keep_a_face(
    triton: Triton, job_gateway: Gateway, material: Path, tmp_path: Path
) -> None:
    run, keep = blocks("sh", PAGE)
    folder = tmp_path / "caller"
    folder.mkdir()
    script = (run + keep).replace("samples/face.png", f"{material}/face.jpg")
    printed = shell(script.replace("samples/speech.wav", f"{material}/speech.wav"), folder, triton, job_gateway)
    states = re.findall(r'"state": "(\w+)"', printed)
    assert states == ["queued", "running", "succeeded"]
    assert "\nevent: state\n" in printed
    assert re.search(r"^15$", printed, re.M)
    assert len(read_video(folder / "avatar.mp4")) == 15
    kept = json.loads(printed.splitlines()[-1])
    assert (kept["width"], kept["height"], kept["frames"]) == (320, 240, None)
    assert all(f"`{name}`" in PAGE for name in kept)
    assert [path.name for path in folder.iterdir() if path.name != "tools"] == ["avatar.mp4"]


def test_the_samples_of_the_page_exist() -> None:
    assert {path for path in re.findall(r"@(samples/\S+)", PAGE) if not (ROOT / path).exists()} == set()
