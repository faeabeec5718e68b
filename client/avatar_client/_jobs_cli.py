"""The commands of `avatar` for jobs (submit, status, watch, fetch, cancel) and for kept faces (keep, faces, forget)."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from . import _cli_types as cli
from ._cli_parser import DONE, FAILED, Parser, Run, Subparsers, add_command, add_timeout, add_url, url_of
from ._console import JOB_CANCELED, JOB_EXPIRED, NOT_CANCELED, SERVER_ERROR, Console, Failure
from ._job_records import Job, KeptFace
from ._jobs import AvatarJobs
from ._render_cli import add_out, check_name, shown_path
from ._schema import BACKGROUND_FILE

_SECONDS = 120.0
_ENDED = {"canceled": JOB_CANCELED, "expired": JOB_EXPIRED}  # codes of jobs that have no error of their own
_LEAVES = "Ctrl-C leaves the job as it is."


def add_commands(commands: Subparsers) -> None:
    """Add the commands to the parser of `avatar`."""
    _add_submit(commands)
    _add(commands, "status", "show a job", _status)
    _add(commands, "watch", "show the progress of a job until it has ended", _watch, epilog=_LEAVES, progress=True)
    fetch = _add(commands, "fetch", "wait for a job and write its video", _fetch, epilog=_LEAVES, progress=True)
    add_out(fetch)
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
    submit.add_argument("--webhook", type=cli.web_url, metavar="URL", help="is called when the job starts and ends")
    submit.add_argument("--result-url", metavar="URL", help="the video is also sent there, by PUT")
    submit.add_argument("--idempotency-key", metavar="KEY", help="two submissions with the same key are one job")
    cli.add_options(submit)


def _add(commands: Subparsers, name: str, text: str, run: Run, *, epilog: str = "", progress: bool = False) -> Parser:
    command = _command(commands, name, text, run, epilog=epilog, progress=progress)
    command.add_argument("job", metavar="ID", help="the id of the job, as `avatar submit` prints it")
    return command


def _command(
    commands: Subparsers, name: str, text: str, run: Run, *, epilog: str = "", progress: bool = False
) -> Parser:
    command = add_command(commands, name, text, run, epilog=epilog, progress=progress)
    add_url(command)
    add_timeout(command, _SECONDS)
    return command


def _jobs(options: argparse.Namespace) -> AvatarJobs:
    return AvatarJobs(url_of(options), timeout=options.timeout)


def _submit(options: argparse.Namespace, console: Console) -> int:
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
        on_progress=console.bar.show,
        background_file=background_file,
        **chosen,
    )
    console.result(job.fields, job.id)
    return DONE


def _status(options: argparse.Namespace, console: Console) -> int:
    job = _jobs(options).get(options.job)
    console.result(job.fields, _line(job))
    return DONE


def _watch(options: argparse.Namespace, console: Console) -> int:
    return _say(_ended(_jobs(options), options.job, console), console)


def _fetch(options: argparse.Namespace, console: Console) -> int:
    jobs = _jobs(options)
    job = _ended(jobs, options.job, console)
    if job.state != "succeeded":
        return _say(job, console)
    jobs.result(job.id, options.out, console.bar.show)
    console.bar.clear()
    if job.result:
        for note in job.result.notes:
            console.note(note)
        check_name(options.out, "webm" if job.result.media_type.endswith("webm") else "mp4", console)
    done = f"{options.out}: {job.result.frames} frames" if job.result else str(options.out)
    console.result({**job.fields, "out": shown_path(options.out)}, done)
    return DONE


def _cancel(options: argparse.Namespace, console: Console) -> int:
    job = _jobs(options).cancel(options.job)
    if job.state == "canceled":
        console.result(job.fields, _line(job))
        return DONE
    console.result(job.fields, _line(job), Failure(NOT_CANCELED, f"the job has ended: {job.state}"))
    return FAILED


def _keep(options: argparse.Namespace, console: Console) -> int:
    face = _jobs(options).keep_face(options.face, console.bar.show)
    console.result(_face_fields(face), face.id)
    return DONE


def _faces(options: argparse.Namespace, console: Console) -> int:
    faces = list(_jobs(options).list_faces())
    console.result({"faces": [_face_fields(face) for face in faces]}, "\n".join(map(_face_line, faces)))
    return DONE


def _forget(options: argparse.Namespace, console: Console) -> int:
    _jobs(options).remove_face(options.face)
    console.result({"id": options.face, "removed": True})
    return DONE


def _face_fields(face: KeptFace) -> dict[str, object]:
    return {**asdict(face), "created_at": face.created_at.isoformat()}


def _face_line(face: KeptFace) -> str:
    """Return a line such as `1f0c… png 512x512, 180 KB`."""
    frames = "" if face.frames is None else f", {face.frames} frames"
    return (
        f"{face.id} {face.face_type} {face.width}x{face.height}{frames}, {face.size} bytes, {face.created_at:%Y-%m-%d}"
    )


def _ended(jobs: AvatarJobs, job: str, console: Console) -> Job:
    """Return the job when it has ended; show its progress until then."""
    for event in jobs.watch(job):
        if event.state:
            console.bar.show(event.state, 0, None)
        else:
            console.bar.show(event.stage or "-", event.frames_done or 0, event.frames_total)
    return jobs.get(job)


def _say(job: Job, console: Console) -> int:
    """Print a job that has ended; return whether it has succeeded."""
    if job.state == "succeeded":
        console.result(job.fields, _line(job))
        return DONE
    failure = Failure(_ENDED.get(job.state, SERVER_ERROR), f"the job has ended: {job.state}")
    if job.error:
        failure = Failure(job.error.code, job.error.detail, job.error.status)
    console.result(job.fields, _line(job), failure)
    return FAILED


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
