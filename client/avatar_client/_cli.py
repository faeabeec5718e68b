"""The command `avatar`; see `avatar --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import _cli_types as cli
from . import _http, _jobs_cli
from ._client import AvatarClient
from ._errors import AvatarClientError
from ._files import is_stdout
from ._jobs import KEY_VARIABLE, key_of
from ._options import with_type
from ._progress_bar import ProgressBar
from ._schema import BACKGROUND_FILE, FACE_TYPE

SERVER = "127.0.0.1:8001"
# Fields that the gateway's form requires, and the model does not.
FORM_DEFAULTS = {FACE_TYPE: "png", "background": "From Input"}
GRPC_SECONDS, HTTP_SECONDS = 120.0, 1800.0  # over HTTP nothing is received before the video is complete
STATUS = "Exit status: 0 done, 1 failed, 2 wrong usage, 130 after Ctrl-C."


_Rendered = tuple[int | None, str, str, tuple[str, ...]]  # frames, stand-ins, container, notes


class _Stopped(BaseException):
    """A signal ended the command. Like KeyboardInterrupt, it passes through every `finally`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when done, 1 when it failed, 2 for wrong usage, 128 + the number of a signal."""
    options = _parser().parse_args(argv)
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # our error messages already contain what gRPC would log about connections
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the cleanup that follows must not be interrupted
        stopped.append(number)
        raise _Stopped

    # SIGINT, too: a shell's `&` starts commands with SIGINT ignored
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    bar = ProgressBar(sys.stderr, quiet=options.no_progress)
    try:
        for number in before:
            signal.signal(number, stop)
        status: int = options.run(options, bar)
    except _Stopped:
        return _fail(bar, "cancelled", 128 + stopped[0])
    except AvatarClientError as error:
        return _fail(bar, error.message)
    except ValueError as error:  # a URL without a host, or a key that is none
        return _fail(bar, str(error), 2)
    except OSError as error:
        return _fail(bar, f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status


def _render(options: argparse.Namespace, bar: ProgressBar) -> int:
    chosen = cli.chosen(options)
    frames, stand_ins, container, notes = (_over_http if options.url else _over_grpc)(options, chosen, bar)
    bar.clear()
    if stand_ins:
        print(f"avatar: made with STAND-INS for {stand_ins}: real weights give another result", file=sys.stderr)
    for note in notes:
        print(f"avatar: note: {note}", file=sys.stderr)
    if container == "webm" and options.out.suffix.lower() == ".mp4":
        print(f"avatar: {options.out} contains a WebM in spite of its name: mp4 has no transparency", file=sys.stderr)
    done = f"{options.out}: {frames} frames" if frames is not None else str(options.out)
    print(done, file=sys.stderr if is_stdout(options.out) else sys.stdout)
    return 0


def _over_grpc(options: argparse.Namespace, chosen: dict[str, str], bar: ProgressBar) -> _Rendered:
    with AvatarClient(options.server, timeout=options.timeout or GRPC_SECONDS) as client:
        rendering = client.render(options.face, options.speech, **chosen)
        summary = rendering.save(options.out, lambda step: bar.show(step.stage, step.done, step.total))
    return summary.frames, ", ".join(summary.stand_ins), summary.container, summary.notes


def _over_http(options: argparse.Namespace, chosen: dict[str, str], bar: ProgressBar) -> _Rendered:
    background_file = chosen.pop(BACKGROUND_FILE, None)
    files = _http.form_of(options.face, options.speech, Path(background_file) if background_file else None)
    fields = FORM_DEFAULTS | with_type(chosen, options.face)
    timeout = options.timeout or HTTP_SECONDS
    posted = _http.post(options.url, fields, files, options.out, timeout, bar.show, key_of(None))
    return posted.frames, posted.stand_ins, posted.container, posted.notes


def _fail(bar: ProgressBar, why: str, status: int = 1) -> int:
    bar.clear()
    print(f"avatar: {' '.join(why.split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avatar",
        description="Render videos of a speaking face with the talking-avatar service: at once, or as jobs.",
        epilog=STATUS,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    render = commands.add_parser(
        "render",
        help="render a video from a face and an audio file",
        description="Render a video in which the face of an image or a video speaks an audio file. The video is "
        "written under a temporary name and renamed when it is complete.",
        epilog=f"{STATUS} Example: avatar render face.jpg speech.wav -o out.mp4 --background White "
        "--set pads=0,20,0,0 --set smooth=false",
    )
    render.add_argument("face", type=Path, help="an image or a video that shows a face")
    render.add_argument("speech", type=Path, help="an audio file in any format that ffmpeg reads")
    render.add_argument(
        "-o",
        "--out",
        type=cli.out,
        required=True,
        help="the video: mp4, or WebM if the background is transparent; - writes it to standard output as it arrives",
    )
    where = render.add_mutually_exclusive_group()
    where.add_argument(
        "--server",
        type=cli.address,
        default=SERVER,
        metavar="HOST:PORT",
        help=f"Triton's gRPC, or several, separated by commas (default {SERVER})",
    )
    where.add_argument(
        "--url",
        type=cli.url,
        help=f"the gateway, as http://host:port: use the form over HTTP instead, with the key of {KEY_VARIABLE}",
    )
    cli.add_options(render)
    render.add_argument(
        "--timeout",
        type=cli.seconds,
        metavar="SECONDS",
        help=f"give up after this time without a response (default {GRPC_SECONDS:.0f}; over HTTP, where "
        f"nothing is sent while the video is rendered, {HTTP_SECONDS:.0f})",
    )
    render.add_argument("--no-progress", action="store_true", help="do not show the progress")
    render.set_defaults(run=_render)
    _jobs_cli.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
