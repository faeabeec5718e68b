"""`python -m bench encode`: both ways give the same video, and the table follows from their costs."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.__main__ import main
from bench.comparison.workloads import Kind
from bench.encoding.cli import Row
from bench.encoding.paths import Cost, Scene, encode
from tests.support.media import read_video


@pytest.mark.parametrize("kind", list(Kind))
def test_both_ways_encode_the_same_frames(tmp_path: Path, kind: Kind) -> None:
    scene = Scene.draw(kind, 640, 360, 6)
    videos = []
    for by_ffmpeg in (True, False):
        cost = encode(scene, tmp_path / "result.mp4", by_ffmpeg=by_ffmpeg)
        assert cost.ffmpeg > 0
        assert cost.own > 0
        assert cost.size == (tmp_path / "result.mp4").stat().st_size
        videos.append(read_video(tmp_path / "result.mp4").astype(float))
    assert videos[0].shape == (6, 360, 640, 3)
    assert 10 * np.log10(255**2 / np.mean((videos[0] - videos[1]) ** 2)) > 40
    assert np.abs(videos[0][0] - videos[0][3]).max() > 30  # the mouth moves


def test_ratios_are_those_of_the_best_rounds() -> None:
    old = [Cost(1, 3, 4, 10), Cost(1, 4, 4, 10), Cost(2, 3, 5, 10)]
    new = [Cost(2, 1, 3, 10), Cost(1, 1, 3, 10), Cost(2, 2, 9, 10)]
    row = Row(Kind.STILL, 720, 250, old, new)
    assert (row.cpu_ratio, row.wall_ratio) == (0.5, 0.75)
    assert row.text == "| still 1280×720 | 1.00 | 3.00 | 4.00 | 1.00 | 1.00 | 3.00 | 0.50 | 0.75 |"


def test_the_command_prints_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "encode.json"
    assert main(["encode", "--frames", "4", "--heights", "360", "--rounds", "1", "--out", str(out)]) == 0
    assert "still 640×360" in capsys.readouterr().out
    assert [row["kind"] for row in json.loads(out.read_text())["rows"]] == ["still", "video"]


def test_a_height_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    assert main(["encode", "--heights", "7", "--out", str(tmp_path / "encode.json")]) == 2
