"""The command `avatar preview`: the face that would speak, drawn on the image or on a contact sheet of the clip."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from . import _cli_types as cli
from ._cli_parser import DONE, FAILED, Subparsers, add_server, add_timeout, server_of
from ._cli_parser import add_command as add
from ._client import AvatarClient
from ._console import FACE_NOT_FOUND, MISSING_EXTRA, Console, Failure
from ._errors import InvalidRequest
from ._files import atomic_write
from ._preview_faces import Detect, FaceFinder, Found, sides_of
from ._preview_options import View
from ._render_cli import shown_path

if TYPE_CHECKING:
    from ._preview_picture import Frame, Source

_SECONDS = 60.0
FRAMES, MAX_FRAMES = 12, 100
_NEEDS = (
    "avatar preview needs OpenCV to decode and draw: pip install 'talking-avatar-client[preview]', or, if pipx has "
    "installed the client, pipx inject talking-avatar-client opencv-python-headless"
)


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    command = add(
        commands,
        "preview",
        "draw the face that would speak, before the work is done",
        _preview,
        description="Draw the faces that are found in an image, or in some frames of a video, and the box of the one "
        "that would speak (green, thick, with its pads). Triton's model detect_faces finds them; no job is started.",
        epilog="The options face, box, pads, crop, rotate, resize_factor, max_height, no_face and detection are "
        "followed; --set takes the others, too. In a video the frames are looked at one by one, while a job tracks "
        "the face through all of them. The exit status is 1 if a frame has no face, unless no_face is keep.",
    )
    command.add_argument("face", type=Path, help="an image or a video that shows a face")
    command.add_argument(
        "-o",
        "--out",
        type=cli.out,
        default=Path("preview.png"),
        metavar="FILE",
        help="the picture, a PNG or a JPEG by its name (default preview.png); - writes a PNG to standard output",
    )
    command.add_argument(
        "--frames", type=_frames, default=FRAMES, metavar="N", help=f"frames of a video (default {FRAMES})"
    )
    add_server(command)
    cli.add_set(command)
    add_timeout(command, _SECONDS)


def _frames(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_FRAMES:
        raise argparse.ArgumentTypeError(f"a number of frames from 1 to {MAX_FRAMES} expected, got {text!r}")
    return int(text)


def _preview(options: argparse.Namespace, console: Console) -> int:
    if find_spec("cv2") is None:
        console.fail(Failure(MISSING_EXTRA, _NEEDS))
        return FAILED
    from . import _preview_picture as picture

    view = View.of(dict(options.set))
    source = picture.Source(options.face)
    with AvatarClient(server_of(options), timeout=options.timeout) as client:
        shown, failure = _look(source, options.frames, view, client.detect_faces)
    if source.fps is None:
        drawing = picture.drawn(*shown[0], picture.STILL_SIDE)
    else:
        drawing = picture.contact_sheet([picture.drawn(*each, picture.TILE_SIDE) for each in shown])
    with atomic_write(options.out) as file:
        file.write(picture.encoded(drawing, options.out.suffix))
    document = {
        "out": shown_path(options.out),
        "frames_total": source.frames,
        "fps": source.fps,
        "width": shown[0][0].image.shape[1],
        "height": shown[0][0].image.shape[0],
        "frames": [_fields(*each) for each in shown],
    }
    console.result(document, _text(options.out, shown, source.frames), failure)
    if failure and not console.as_json:
        console.fail(failure)
    return FAILED if failure else DONE


def _look(source: Source, count: int, view: View, detect: Detect) -> tuple[list[tuple[Frame, Found]], Failure | None]:
    """Return the frames with what they show, and why the service would reject a job. Raises AvatarClientError."""
    from . import _preview_picture as picture

    finder = FaceFinder(detect, picture.resized, view)
    shown: list[tuple[Frame, Found]] = []
    for read in source.read(count):
        frame = picture.Frame(read.index, read.time, picture.transformed(read.image, view))
        try:
            shown.append((frame, finder.find(frame.image)))
        except InvalidRequest as error:
            if not error.message.startswith("face: no face with index"):
                raise
            # the picture shows which faces there are
            all_faces = FaceFinder(detect, picture.resized, View(exact=view.exact)).find(frame.image)
            shown.append((frame, Found(all_faces.boxes, all_faces.scores)))
            return shown, Failure.of(error)
    return shown, _missing(shown, view)


def _missing(shown: list[tuple[Frame, Found]], view: View) -> Failure | None:
    """Return why the service would reject the request: a frame without a face."""
    missing = [frame for frame, found in shown if found.box is None]
    if view.keep or not missing:
        return None
    where = ", ".join(f"{frame.time:.1f} s" for frame in missing if frame.time is not None)
    what = f"no face at {where}" if where else "no face is found"
    return Failure(FACE_NOT_FOUND, f"{what}: a job would be rejected; give box, or no_face=keep for a video", 400)


def _fields(frame: Frame, found: Found) -> Mapping[str, object]:
    faces = [
        {"box": sides_of(box), "score": round(float(score), 4)}
        for box, score in zip(found.boxes, found.scores, strict=True)
    ]
    return {"index": frame.index, "time": frame.time, "faces": faces, "chosen": found.chosen, "box": found.sides}


def _text(out: Path, shown: list[tuple[Frame, Found]], total: int) -> str:
    """Return a line such as `preview.png: 2 faces, face 1 speaks: box=40,180,60,170`."""
    frame, found = shown[0]
    height, width = frame.image.shape[:2]
    count = len(found.boxes)
    faces = f"{count} face{'s' * (count != 1)}" if count else "the given box" if found.box is not None else "no face"
    chosen = "" if found.chosen is None or count < 2 else f", number {found.chosen} speaks"
    box = "" if found.sides is None else f", box={','.join(map(str, found.sides))}"
    of_all = f"{len(shown)} of {total} frames, " if frame.time is not None else ""
    first = "; in the first: " if of_all else ", "
    return f"{out}: {of_all.removesuffix(', ')}{first if of_all else ''}{faces}{chosen}{box} in {width}x{height}"
