"""The commands of `avatar` for jobs (submit, status, watch, fetch, cancel) and for kept faces (keep, faces, forget)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _cli_types as cli
from ._files import is_stdout
from ._job_records import Job, KeptFace
from ._jobs import KEY_VARIABLE, AvatarJobs
from ._progress_bar import ProgressBar
from ._schema import BACKGROUND_FILE

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

Run = Callable[[argparse.Namespace, ProgressBar], int]

GATEWAY = "http://127.0.0.1:16000"
_STATUS = "Exit status: 0 done, 1 failed, 2 wrong usage, 130 after Ctrl-C, which leaves the job as it is."
_SECONDS = 120.0


def add_commands(commands: Subparsers) -> None:
    """Add the commands to the parser of `avatar`."""
    _add_submit(commands)
    status = _add(commands, "status", "show a job", _status)
    status.add_argument("--json", action="store_true", help="print all that the service says, as JSON")
    _add(commands, "watch", "show the progress of a job until it has ended", _watch, progress=True)
    fetch = _add(commands, "fetch", "wait for a job and write its video", _fetch, progress=True)
    fetch.add_argument(
        "-o", "--out", type=cli.out, required=True, help="the video; - writes it to standard output as it arrives"
    )
    _add(commands, "cancel", "cancel a job that has not ended", _cancel)
    keep = _command(
        commands, "keep", "let the service keep a face for many jobs, and print its id", _keep, progress=True
    )
    keep.add_argument("face", metavar="FILE", help="an image or a video that shows a face")
    _command(commands, "faces", "list the kept faces", _faces)
    forget = _command(commands, "forget", "remove a kept face", _forget)
    forget.add_argument("face", metavar="ID", help="the id of the face, as `avatar keep` prints it")


def _add_submit(commands: Subparsers) -> None:
    submit = _command(commands, "submit", "hand over a job and print its id", _submit, progress=True)
    submit.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="the face (an image or a video) and the speech (an audio file), each a path or a URL; only the speech "
        "with --avatar",
    )
    submit.add_argument(
        "--avatar", metavar="ID", help="a face that the service keeps: the id that `avatar keep` prints"
    )
    submit.add_argument("--priority", choices=("interactive", "batch"), help="batch jobs wait for interactive ones")
    submit.add_argument("--webhook", type=cli.url, metavar="URL", help="is called when the job starts and ends")
    submit.add_argument("--result-url", metavar="URL", help="the video is also sent there, by PUT")
    submit.add_argument("--idempotency-key", metavar="KEY", help="two submissions with the same key are one job")
    cli.add_options(submit)


def _add(commands: Subparsers, name: str, text: str, run: Run, *, progress: bool = False) -> argparse.ArgumentParser:
    command = _command(commands, name, text, run, progress=progress)
    command.add_argument("job", metavar="ID", help="the id of the job, as `avatar submit` prints it")
    return command


def _command(
    commands: Subparsers, name: str, text: str, run: Run, *, progress: bool = False
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=_STATUS)
    command.add_argument(
        "--url",
        type=cli.url,
        default=GATEWAY,
        help=f"the gateway (default {GATEWAY}); the API key is that of the variable {KEY_VARIABLE}",
    )
    command.add_argument(
        "--timeout",
        type=cli.seconds,
        default=_SECONDS,
        metavar="SECONDS",
        help=f"give up after this time without a response (default {_SECONDS:.0f})",
    )
    if progress:
        command.add_argument("--no-progress", action="store_true", help="do not show the progress")
    command.set_defaults(run=run, parser=command, no_progress=not progress)
    return command


def _jobs(options: argparse.Namespace) -> AvatarJobs:
    return AvatarJobs(options.url, timeout=options.timeout)


def _submit(options: argparse.Namespace, bar: ProgressBar) -> int:
    needed = ("speech",) if options.avatar else ("face", "speech")
    if len(options.files) != len(needed):
        options.parser.error(f"expected {' and '.join(needed)}, got {len(options.files)} files")
    *faces, speech = options.files
    chosen = cli.chosen(options)
    background_file = chosen.pop(BACKGROUND_FILE, None)
    job = _jobs(options).submit(
        faces[0] if faces else None,
        speech,
        avatar=options.avatar,
        priority=options.priority,
        webhook=options.webhook,
        result_url=options.result_url,
        idempotency_key=options.idempotency_key,
        on_progress=bar.show,
        background_file=background_file,
        **chosen,
    )
    bar.clear()
    print(job.id)
    return 0


def _status(options: argparse.Namespace, bar: ProgressBar) -> int:
    job = _jobs(options).get(options.job)
    print(json.dumps(dict(job.fields), indent=2) if options.json else _line(job))
    return 0


def _watch(options: argparse.Namespace, bar: ProgressBar) -> int:
    return _say(_ended(_jobs(options), options.job, bar), bar)


def _fetch(options: argparse.Namespace, bar: ProgressBar) -> int:
    jobs = _jobs(options)
    job = _ended(jobs, options.job, bar)
    if job.state != "succeeded":
        return _say(job, bar)
    jobs.result(job.id, options.out, bar.show)
    bar.clear()
    for note in job.result.notes if job.result else ():
        print(f"avatar: note: {note}", file=sys.stderr)
    done = f"{options.out}: {job.result.frames} frames" if job.result else str(options.out)
    print(done, file=sys.stderr if is_stdout(options.out) else sys.stdout)
    return 0


def _cancel(options: argparse.Namespace, bar: ProgressBar) -> int:
    job = _jobs(options).cancel(options.job)
    print(_line(job))
    return 0 if job.state == "canceled" else 1


def _keep(options: argparse.Namespace, bar: ProgressBar) -> int:
    face = _jobs(options).keep_face(options.face, bar.show)
    bar.clear()
    print(face.id)
    return 0


def _faces(options: argparse.Namespace, bar: ProgressBar) -> int:
    for face in _jobs(options).list_faces():
        print(_face_line(face))
    return 0


def _forget(options: argparse.Namespace, bar: ProgressBar) -> int:
    _jobs(options).remove_face(options.face)
    return 0


def _face_line(face: KeptFace) -> str:
    """Return a line such as `1f0c… png 512x512, 180 KB`."""
    frames = "" if face.frames is None else f", {face.frames} frames"
    return (
        f"{face.id} {face.face_type} {face.width}x{face.height}{frames}, {face.size} bytes, {face.created_at:%Y-%m-%d}"
    )


def _ended(jobs: AvatarJobs, job: str, bar: ProgressBar) -> Job:
    """Return the job when it has ended; show its progress until then."""
    for event in jobs.watch(job):
        if event.state:
            bar.show(event.state, 0, None)
        else:
            bar.show(event.stage or "-", event.frames_done or 0, event.frames_total)
    return jobs.get(job)


def _say(job: Job, bar: ProgressBar) -> int:
    bar.clear()
    print(_line(job))
    return 0 if job.state == "succeeded" else 1


def _line(job: Job) -> str:
    """Return a line such as `1f0c… running: encode, 120/250 frames`."""
    words = ""
    if job.error:
        words = f": {job.error.code}: {job.error.detail}"
    elif job.place is not None:
        words = f": place {job.place}"
    elif job.stage:
        of_all = f"/{job.frames_total}" if job.frames_total is not None else ""
        words = f": {job.stage}" + ("" if job.frames_done is None else f", {job.frames_done}{of_all} frames")
    elif job.result:
        words = f": {job.result.frames} frames, {job.result.duration:g} s, {job.result.size} bytes"
    return f"{job.id} {job.state}{words}"
