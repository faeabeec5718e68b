"""The command `avatar preview`: its search and its choice are those of the service, and its picture shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from avatar.errors import InvalidField
from avatar.faces import detection, selection
from avatar.form.fields import parse_options
from avatar.limits import LIMITS
from avatar.media import image as service_image
from avatar.media.transform import FrameTransform
from avatar.options import NoFace
from avatar_client import InvalidRequest, _cli, _preview_faces, _preview_picture
from avatar_client._preview_faces import FaceFinder
from avatar_client._preview_options import View
from tests.client.fake_server import FakeServer
from tests.support.media import write_video

IMAGE = np.zeros((400, 600, 3), np.uint8)
BOXES = np.array([[300, 100, 400, 220], [40, 50, 90, 110], [480, 200, 560, 300]], np.float32)  # best first


def detector(*boxes: np.ndarray, size: tuple[int, int] = (600, 400)) -> Any:
    """Return a `detect_faces` that finds these boxes of a frame of this size, whatever size it gets."""

    def detect(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = np.array((frames.shape[2] / size[0], frames.shape[1] / size[1]) * 2)
        found, scores = np.zeros((1, 16, 4), np.float32), np.zeros((1, 16), np.float32)
        for n, box in enumerate(boxes):
            found[0, n], scores[0, n] = box * scale, 0.99 - n / 100
        return found, scores

    return detect


def find(view: View, *boxes: np.ndarray) -> _preview_faces.Found:
    return FaceFinder(detector(*boxes), _preview_picture.resized, view).find(IMAGE)


def test_the_constants_are_those_of_the_service() -> None:
    ours = _preview_faces
    assert (ours.SEARCH_PIXELS, ours.ROI_PIXELS) == (detection.SEARCH_PIXELS, detection.ROI_PIXELS)
    assert (ours.ROI_MARGIN, ours.GRID, ours.MIN_SIDE) == (detection.ROI_MARGIN, detection.GRID, detection.MIN_SIDE)
    assert selection.MATCH_IOU == ours.MATCH_IOU
    assert LIMITS.max_work_pixels == _preview_picture.WORK_PIXELS
    assert service_image.MIN_SIDE == _preview_picture.MIN_SIDE


@pytest.mark.parametrize("face", ["best", "largest", "left", "right", "0", "2", "70,80", "599,399", "10 390"])
def test_the_chosen_face_is_that_of_the_service(face: str) -> None:
    found = find(View.of({"face": face, "pads": "0,0,0,0"}), *BOXES)
    selector = selection.FaceSelector(parse_options({"face": face}).face)
    expected = selector.select(BOXES, np.array([0.99, 0.98, 0.97], np.float32))
    assert found.box is not None and found.chosen is not None and expected is not None
    assert np.array_equal(found.box, expected)
    assert np.array_equal(found.boxes[found.chosen], expected)
    assert [box[0] for box in found.boxes] == [40, 300, 480]  # from the left, as `face` counts


def test_the_face_is_followed_from_frame_to_frame() -> None:
    finder = FaceFinder(detector(*BOXES), _preview_picture.resized, View.of({"face": "left"}))
    assert finder.find(IMAGE).chosen == 0
    moved = BOXES + np.array((20, 0, 20, 0), np.float32)
    finder._detect = detector(*moved[::-1], np.array([0, 0, 20, 20], np.float32))
    found = finder.find(IMAGE)
    assert found.chosen == 1 and found.boxes[0][0] == 0  # another one is the leftmost now


def test_pads_and_a_given_box_are_those_of_the_form() -> None:
    assert find(View(), BOXES[0]).sides == (100, 230, 300, 400)
    assert find(View.of({"pads": "10,500,-5,0"}), BOXES[0]).sides == (90, 400, 305, 400)
    found = find(View.of({"box": "1,2,3,4"}), *BOXES)
    assert (found.sides, len(found.boxes)) == ((1, 2, 3, 4), 0)
    with pytest.raises(InvalidRequest, match="box: must lie inside the 600x400 image"):
        find(View.of({"box": "1,401,3,4"}))
    assert find(View()).box is None


@pytest.mark.parametrize("seed", range(30))
def test_the_region_of_a_face_is_that_of_the_service(seed: int) -> None:
    random = np.random.default_rng(seed)
    width, height = random.integers(40, 4000, 2)
    x, y = random.uniform(-50, width), random.uniform(-50, height)
    box = np.array([x, y, x + random.uniform(1, 800), y + random.uniform(1, 800)], np.float32)
    assert _preview_faces.region(box, width, height) == detection.roi(box, width, height)


def test_a_large_frame_is_searched_small_and_the_face_at_its_own_size() -> None:
    sizes: list[tuple[int, ...]] = []
    frame, box = np.zeros((1000, 2000, 3), np.uint8), np.array([1000, 300, 1200, 500], np.float32)

    def detect(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(frames.shape[1:3])
        whole = len(sizes) == 1
        found, scores = np.zeros((1, 16, 4), np.float32), np.zeros((1, 16), np.float32)
        found[0, 0] = box * frames.shape[2] / 2000 if whole else np.array([110, 50, 310, 250], np.float32)
        scores[0, 0] = 0.9
        return found, scores

    rows, columns = detection.roi(box, 2000, 1000)
    found = FaceFinder(detect, _preview_picture.resized, View(pads=(0, 0, 0, 0))).find(frame)
    assert sizes[0] == (391, 783) and sizes[1] == (rows.stop - rows.start, columns.stop - columns.start)
    assert found.sides == (rows.start + 50, rows.start + 250, columns.start + 110, columns.start + 310)


TRANSFORMS = [
    {},
    {"resize_factor": "2"},
    {"rotate": "true"},
    {"rotate": "yes", "crop": "10,-1,5,50"},
    {"crop": "0,90,20,-1", "max_height": "64"},
    {"resize_factor": "3", "rotate": "1", "crop": "1,40,2,9999", "max_height": "100"},
]


@pytest.mark.parametrize("options", TRANSFORMS)
def test_a_frame_is_transformed_as_by_the_service(options: dict[str, str]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (180, 240, 3), np.uint8)
    (expected,) = FrameTransform(240, 180, parse_options(options))(image[None])
    assert np.array_equal(_preview_picture.transformed(image, View.of(options)), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("face", each) for each in ("", "LEFT", "3", "1,2", "left,right", "-1", "1,2,3")),
        *(("pads", each) for each in ("1,2,3,4", "1 2 3 4", "-5,0,0,0", "1,2,3", "a,b,c,d")),
        *(("box", each) for each in ("-1,-1,-1,-1", "0,10,0,10", "10,5,0,10", "-1,5,0,10")),
        *(("crop", each) for each in ("0,-1,0,-1", "5,4,0,-1", "-2,-1,0,-1", "0,-1,7,7")),
        *(("resize_factor", each) for each in ("1", "16", "17", "0", "2.5")),
        *(("max_height", each) for each in ("", "64", "63")),
        *(("rotate", each) for each in ("On", "no", "2")),
        *(("no_face", each) for each in ("Keep", "drop")),
        *(("detection", each) for each in ("EXACT", "slow")),
    ],
)
def test_options_are_valid_where_the_service_says_so(name: str, value: str) -> None:
    try:
        expected = parse_options({name: value})
    except InvalidField:
        with pytest.raises(InvalidRequest, match=f"^{name}: expected "):
            View.of({name: value})
        return
    view = View.of({name: value})
    assert (view.pads, view.box, view.crop, view.resize_factor, view.rotate, view.max_height, view.keep) == (
        *(expected.pads, expected.box, expected.crop, expected.resize_factor, expected.rotate),
        *(expected.max_height or 0, expected.no_face is NoFace.KEEP),
    )


def test_an_image_is_decoded_upright_and_over_white(tmp_path: Path) -> None:
    colors = np.zeros((100, 200, 4), np.uint8)
    colors[:, :100] = (10, 20, 30, 255)
    cv2.imwrite(str(tmp_path / "cutout.png"), colors)
    (frame,) = _preview_picture.Source(tmp_path / "cutout.png").read(5)
    assert frame.image[50, 50].tolist() == [10, 20, 30] and frame.image[50, 150].tolist() == [255, 255, 255]
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((48, 60, 3), np.uint8))
    (frame,) = _preview_picture.Source(tmp_path / "small.png").read(1)
    assert frame.image.shape == (96, 120, 3)


def test_frames_are_taken_at_even_distances(tmp_path: Path) -> None:
    levels = np.arange(0, 250, 5, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "clip.mp4", np.broadcast_to(levels, (50, 64, 96, 3)).copy())
    source = _preview_picture.Source(tmp_path / "clip.mp4")
    frames = list(source.read(4))
    assert (source.frames, source.fps) == (50, 25.0)
    assert [(frame.index, frame.time) for frame in frames] == [(0, 0.0), (16, 0.64), (33, 1.32), (49, 1.96)]
    assert [abs(int(frame.image.mean()) - 5 * frame.index) <= 3 for frame in frames] == [True] * 4
    assert len(list(source.read(100))) == 50


@pytest.fixture
def command(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for an image, with a fake server that finds a face of any size in a corner if its pixel is green."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[0, 0] = (100, 255, 0)  # the fake's box is 0, 0, 100, 100
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("face.png", image)
    monkeypatch.setenv("AVATAR_SERVER", server.address)
    return ["preview", "face.png"]


def test_the_picture_shows_the_box(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cli.main([*command, "--set", "box=20,100,30,120"]) == 0
    assert capsys.readouterr().out == "preview.png: the given box, box=20,100,30,120 in 160x120\n"
    picture = cv2.imread(str(tmp_path / "preview.png"))
    assert picture is not None and picture.shape == (120, 160, 3)
    green = np.argwhere((picture == _preview_picture.GREEN).all(-1))
    assert np.abs(green.min(0) - (20, 30)).max() <= 2 and np.abs(green.max(0) - (99, 119)).max() <= 2


def test_the_picture_of_a_jpeg_name_is_a_jpeg_and_standard_output_gets_a_png(
    command: list[str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert _cli.main([*command, "-o", "a.JPG", "--set", "box=20,100,30,120"]) == 0
    assert (tmp_path / "a.JPG").read_bytes().startswith(b"\xff\xd8")
    capfdbinary.readouterr()
    assert _cli.main([*command, "-o", "-", "--set", "box=20,100,30,120", "--json"]) == 0
    picture, words = capfdbinary.readouterr()
    assert picture.startswith(b"\x89PNG")
    assert json.loads(words)["frames"][0]["box"] == [20, 100, 30, 120]


def test_an_image_without_a_face_fails_with_a_picture(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("face.png", np.zeros((120, 160, 3), np.uint8))
    assert _cli.main([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["code"] == "face_not_found"
    assert document["frames"] == [{"index": 0, "time": None, "faces": [], "chosen": None, "box": None}]
    assert (tmp_path / "preview.png").exists()
    assert _cli.main([*command, "--set", "no_face=keep"]) == 0


def test_what_cannot_be_shown_is_told_in_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.png").write_text("no image")
    Path("empty.png").write_bytes(b"")
    cases = {
        ("notes.png",): "face: neither an image nor a video",
        ("empty.png",): "face: neither an image nor a video",
        ("none.png",): "none.png: No such file or directory",
        ("face.png", "--set", "face=up"): "face: expected best, largest, left, right",
        ("face.png", "--set", "face=3"): "face: no face with index 3; 1 found, counted from 0",
        ("face.png", "--set", "crop=500,-1,0,-1"): "crop: outside the 160x120 image",
    }
    for arguments, words in cases.items():
        assert _cli.main(["preview", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


def test_without_opencv_the_extra_is_named(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avatar_client._preview.find_spec", lambda name: None)
    assert _cli.main([*command, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "missing_extra" and "talking-avatar-client[preview]" in error["detail"]
