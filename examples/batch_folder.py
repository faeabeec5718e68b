"""Make a video of every pair of a face and a speech in a folder, as jobs, a few at the same time.

    python batch_folder.py clips/ videos/ --at-once 4 --set quality=high

`clips/` holds pairs of one name, such as anna.png and anna.wav; `videos/` gets anna.mp4, and report.csv at the end.
Run it again to go on: finished videos are left out, a job that still runs is taken up, one that failed is made again.

It needs `pip install ./client`, and a service with a database, as `make up` has one, at AVATAR_URL; AVATAR_API_KEY is
its key if it needs one. Exit status: 0 every pair has its video, 1 some have none (report.csv says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from avatar_client import AvatarClientError, AvatarJobs

FACES = {".png", ".jpg", ".jpeg", ".webp", ".mp4", ".mov", ".webm", ".mkv"}
SPEECHES = {".wav", ".mp3", ".m4a", ".ogg", ".opus", ".flac"}


class Row(NamedTuple):
    """One line of the report."""

    name: str
    state: str
    frames: int | str = ""
    job: str = ""
    reason: str = ""


def pairs(folder: Path) -> Iterator[tuple[str, Path | None, Path | None]]:
    """Yield the name, the face and the speech of each pair; None in place of one that is missing."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in FACES | SPEECHES)
    for name in sorted({path.stem for path in files}):
        of_name = [path for path in files if path.stem == name]
        face = next((path for path in of_name if path.suffix.lower() in FACES), None)
        yield name, face, next((path for path in of_name if path.suffix.lower() in SPEECHES), None)


def key(face: Path, speech: Path, options: dict[str, str]) -> str:
    """Return the Idempotency-Key of a pair: the same content is the same job, also in the next run."""
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    for path in (face, speech):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make(jobs: AvatarJobs, name: str, face: Path, speech: Path, out: Path, options: dict[str, str]) -> Row:
    """Make one video, and return its line of the report."""
    video = out / f"{name}.{'webm' if options.get('background') == 'Transparent' else 'mp4'}"
    if video.exists():
        return Row(name, "was there")
    chosen: Any = {**options, "priority": "batch"}
    try:
        job = jobs.submit(face, speech, idempotency_key=key(face, speech, options), **chosen)
        if job.state in ("failed", "canceled", "expired"):  # in an earlier run
            job = jobs.submit(face, speech, **chosen)
        job = jobs.wait(job.id)
        if job.state != "succeeded" or job.result is None:
            return Row(name, job.state, job=job.id, reason=job.error.detail if job.error else "")
        jobs.result(job.id, video)  # appears under its name when it is whole
        return Row(name, job.state, job.result.frames, job.id)
    except (AvatarClientError, OSError, TypeError) as error:  # TypeError: an option that does not exist
        return Row(name, "failed", reason=str(error))


def main(arguments: argparse.Namespace) -> int:
    """Make all videos, write the report, and return the exit status."""
    jobs = AvatarJobs(arguments.url)
    arguments.out.mkdir(parents=True, exist_ok=True)
    options, rows = dict(arguments.set), []
    with ThreadPoolExecutor(arguments.at_once) as pool:
        work = []
        for name, face, speech in pairs(arguments.folder):
            if face and speech:
                work.append(pool.submit(make, jobs, name, face, speech, arguments.out, options))
            else:
                rows.append(Row(name, "left out", reason=f"there is no {'speech' if face else 'face'} of this name"))
        for done in work:
            rows.append(row := done.result())
            print(f"{row.name}: {row.state}" + (f", {row.reason}" if row.reason else ""), flush=True)
    with (arguments.out / "report.csv").open("w", newline="") as file:
        csv.writer(file).writerows([Row._fields, *sorted(rows)])
    good = sum(row.state in ("succeeded", "was there") for row in rows)
    print(f"{good} of {len(rows)} videos are in {arguments.out}; {arguments.out / 'report.csv'} lists all")
    return 0 if good == len(rows) else 1


def option(text: str) -> tuple[str, str]:
    """Return the two parts of NAME=VALUE."""
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a video of every pair of a face and a speech in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--url", default=os.environ.get("AVATAR_URL", "http://127.0.0.1:16000"))
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="jobs at the same time (default: 4)")
    parser.add_argument("--set", type=option, action="append", default=[], metavar="NAME=VALUE", help="an option")
    parsed = parser.parse_args()
    if not parsed.folder.is_dir() or parsed.at_once < 1:
        parser.error("FOLDER has to be a folder, and --at-once at least 1")
    sys.exit(main(parsed))
