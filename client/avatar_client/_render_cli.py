"""The command `avatar render`: a video at once, over gRPC or by the form."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _cli_types as cli
from . import _http
from ._cli_parser import (
    DONE,
    SERVER_VARIABLE,
    URL_VARIABLE,
    Subparsers,
    add_server,
    add_timeout,
    add_url,
    server_of,
    url_of,
    variable,
)
from ._cli_parser import add_command as add
from ._client import AvatarClient
from ._console import Console
from ._files import is_stdout
from ._jobs import key_of
from ._options import with_type
from ._schema import BACKGROUND_FILE, FACE_TYPE

# Fields that the gateway's form requires, and the model does not.
FORM_DEFAULTS = {FACE_TYPE: "png", "background": "From Input"}
GRPC_SECONDS, HTTP_SECONDS = 120.0, 1800.0  # over HTTP nothing is received before the video is complete
CONTAINERS = {"mp4": {".mp4", ".m4v", ".mov"}, "webm": {".webm"}}  # names that players take for them


@dataclass(frozen=True)
class Rendered:
    """What is known of a video that was written; the fields are those of the JSON."""

    frames: int | None
    container: str
    stand_ins: tuple[str, ...]
    notes: tuple[str, ...]
    more: Mapping[str, Any]  # None where the form does not say it


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    render = add(
        commands,
        "render",
        "render a video from a face and an audio file",
        _render,
        description="Render a video in which the face of an image or a video speaks an audio file. The video is "
        "written under a temporary name and renamed when it is complete.",
        epilog="Example: avatar render face.jpg speech.wav -o out.mp4 --background White --set pads=0,20,0,0 "
        f"--set smooth=false\n\nThe form is used with --url, or if {URL_VARIABLE} is set and {SERVER_VARIABLE} is not.",
        progress=True,
    )
    render.add_argument("face", type=Path, help="an image or a video that shows a face")
    render.add_argument("speech", type=Path, help="an audio file in any format that ffmpeg reads")
    add_out(render)
    where = render.add_mutually_exclusive_group()
    add_server(where)
    add_url(where, "the gateway, as http://host:port: use the form over HTTP instead")
    cli.add_options(render)
    over_http = f"; over HTTP, where nothing is sent while the video is rendered, {HTTP_SECONDS:.0f}"
    add_timeout(render, GRPC_SECONDS, over_http)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out`."""
    text = "the video: mp4, or WebM if the background is transparent; - writes it to standard output as it arrives"
    parser.add_argument("-o", "--out", type=cli.out, required=True, metavar="FILE", help=text)


def check_name(out: Path, container: str, console: Console) -> None:
    """Warn of a file whose name says something else than its content."""
    if is_stdout(out) or not out.suffix or (out.exists() and not out.is_file()):
        return
    if container == "webm" and out.suffix.lower() == ".mp4":
        console.warn(f"{out} contains a WebM in spite of its name: mp4 has no transparency")
    elif out.suffix.lower() not in CONTAINERS.get(container, {out.suffix.lower()}):
        console.warn(f"{out} contains {'a WebM' if container == 'webm' else 'an mp4'} in spite of its name")


def shown_path(out: Path) -> str:
    """Return the path as JSON has it; `-` for standard output."""
    return "-" if is_stdout(out) else str(out)


def _render(options: argparse.Namespace, console: Console) -> int:
    chosen = cli.chosen(options)
    by_form = options.url or (
        not options.server and variable(URL_VARIABLE, cli.url) and not variable(SERVER_VARIABLE, cli.address)
    )
    made = (_over_http if by_form else _over_grpc)(options, chosen, console)
    console.bar.clear()
    if made.stand_ins:
        names = ", ".join(made.stand_ins)
        console.warn(f"made with STAND-INS for {names}: real weights give another result")
    for note in made.notes:
        console.note(note)
    check_name(options.out, made.container, console)
    document = {
        "out": shown_path(options.out),
        "frames": made.frames,
        "container": made.container,
        "stand_ins": made.stand_ins,
        "notes": made.notes,
        **made.more,
    }
    console.result(document, f"{options.out}: {made.frames} frames" if made.frames is not None else str(options.out))
    return DONE


def _over_grpc(options: argparse.Namespace, chosen: dict[str, str], console: Console) -> Rendered:
    with AvatarClient(server_of(options), timeout=options.timeout or GRPC_SECONDS) as client:
        rendering = client.render(options.face, options.speech, **chosen)
        summary = rendering.save(options.out, lambda step: console.bar.show(step.stage, step.done, step.total))
    more = {
        "frames_without_face": summary.without_face,
        "fps": str(summary.fps),
        "duration": summary.duration,
        "encoder": summary.encoder,
        "decoder": summary.decoder,
        "seconds": summary.seconds,
    }
    return Rendered(summary.frames, summary.container, summary.stand_ins, summary.notes, more)


def _over_http(options: argparse.Namespace, chosen: dict[str, str], console: Console) -> Rendered:
    background_file = chosen.pop(BACKGROUND_FILE, None)
    files = _http.form_of(options.face, options.speech, Path(background_file) if background_file else None)
    fields = FORM_DEFAULTS | with_type(chosen, options.face)
    timeout = options.timeout or HTTP_SECONDS
    posted = _http.post(url_of(options), fields, files, options.out, timeout, console.bar.show, key_of(None))
    more = {
        "frames_without_face": posted.without_face,
        "fps": None,
        "duration": None,
        "encoder": posted.encoder,
        "decoder": posted.decoder,
        "seconds": posted.seconds,
    }
    if posted.ignored:
        console.warn(f"the service does not know, and has ignored: {posted.ignored}")
    stand_ins = tuple(filter(None, posted.stand_ins.split(", ")))
    return Rendered(posted.frames, posted.container, stand_ins, posted.notes, more)
