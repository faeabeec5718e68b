"""`python -m demo [run|up]`: see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from embedded.postgres import database_url, socket_folder

from . import client, contact_sheet
from .errors import DemoError
from .models import ACCEPT_LICENSE, add_variant, prepare, variant_args
from .stack import DATABASE_OF_ROOT, URL_VARIABLE, Ports, default_database, running
from .supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
DATABASE_VARIABLE = "AVATAR_DATABASE_DIR"
STORE_VARIABLE = "AVATAR_STORE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(argv)
    # SIGTERM stops us as cleanly as Ctrl-C. SIGINT is set too, because a shell's `&` starts us with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return up(options) if options.command == "up" else run(options)
    except KeyboardInterrupt:
        return 0 if options.command == "up" else 1
    except (DemoError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """Post the sample as the form, and leave the video and its contact sheet in `--out`."""
    start = time.monotonic()
    _prepare(options)
    exported = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    video, sheet = options.out / "demo.mp4", options.out / "demo.png"
    with running(options.repository, options.logs, Ports.free()) as stack:
        started = time.monotonic()
        print(f"posting {options.face.name} and {options.speech.name} to {stack.url}/")
        result = client.post(stack.url, options.face, options.speech, options.background)
        posted = time.monotonic()
    video.write_bytes(result.mp4)
    contact_sheet.draw(video, options.speech, sheet)
    rows = [("weights and export", exported - start), ("start Triton and gateway", started - exported)]
    rows += [(f"  {stage}", seconds) for stage, seconds in result.stages.items()]
    rows += [("whole request", posted - started), ("stop, contact sheet", time.monotonic() - posted)]
    print("\n".join(f"{name:<28}{seconds:>8.2f} s" for name, seconds in rows))
    print("(indented: stages of the job, which overlap)")
    if result.stand_ins:
        print(f"!! rendered with STAND-INS for {result.stand_ins}: real weights would give another result")
    print(f"{_shown(video)} ({result.frames} frames), {_shown(sheet)}")
    return 0


def up(options: argparse.Namespace) -> int:
    """Run the service until Ctrl-C; a server that ends by itself is started again."""
    _prepare(options)
    ports = Ports(options.port, options.grpc_port, options.metrics_port, options.http_port)
    # a PostgreSQL of the user's own is not ours to start
    database = None if os.environ.get(URL_VARIABLE) else options.database
    settings = {STORE_VARIABLE: os.environ.get(STORE_VARIABLE) or str(options.store)}
    with running(options.repository, options.logs, ports, options.host, settings, database) as stack:
        print(f"open {stack.url}/ in a browser", flush=True)
        print(
            f"form: {stack.url}/   API docs: {stack.url}/docs   Triton gRPC: 127.0.0.1:{ports.grpc}   (Ctrl-C stops)",
            flush=True,
        )
        if database is not None:
            print(f"database: {database_url(socket_folder(database))}", flush=True)
        Supervisor(stack.children, _report).run()
    return 0


def _prepare(options: argparse.Namespace) -> None:
    if not options.no_export:
        prepare(options.weights, options.repository, variant_args(options), accept_license=options.accept_license)


def _report(line: str) -> None:
    print(f"demo: {line}", file=sys.stderr, flush=True)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Render a video from the samples, or run the whole service. The models are exported first if they "
        "are not there yet.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument(
        "command", nargs="?", choices=("run", "up"), default="run", help="run: one video (default); up: the service"
    )
    paths = parser.add_argument_group("paths")
    paths.add_argument("--weights", type=Path, default=ROOT / "weights", help="checkpoints (default: weights)")
    paths.add_argument(
        "--repository",
        type=Path,
        default=ROOT / "build" / "repository",
        help="folder of exported models (default: build/repository)",
    )
    paths.add_argument(
        "--logs", type=Path, default=ROOT / "build" / "logs", help="folder of the servers' logs (default: build/logs)"
    )
    paths.add_argument(
        ACCEPT_LICENSE,
        "--accept-licence",
        action="store_true",
        help="download missing weights without asking. This accepts that those of Wav2Lip are for research and "
        "personal use only",
    )
    exported = parser.add_argument_group("exported models")
    add_variant(exported)
    exported.add_argument(
        "--no-export", action="store_true", help="use the models in --repository as they are; export nothing"
    )
    one = parser.add_argument_group("run")
    one.add_argument("--face", type=Path, default=SAMPLES / "face.png", help="image or video (default: a sample)")
    one.add_argument("--speech", type=Path, default=SAMPLES / "speech.wav", help="audio (default: a sample)")
    one.add_argument("--background", default="From Input", help="the form's background field (default: From Input)")
    one.add_argument("--out", type=Path, default=ROOT / "out", help="folder for demo.mp4 and demo.png (default: out)")
    service = parser.add_argument_group("up")
    service.add_argument("--host", default="127.0.0.1", help="address that the gateway listens on (default 127.0.0.1)")
    service.add_argument("--port", type=int, default=16000, help="port of the gateway (default 16000)")
    service.add_argument(
        "--database",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get(DATABASE_VARIABLE) or default_database(ROOT / "build")),
        help=f"data folder of PostgreSQL, which holds the jobs; not used with {URL_VARIABLE} (default: "
        f"{DATABASE_VARIABLE}, or else build/database, or {DATABASE_OF_ROOT} for root with a checkout in a closed "
        "folder)",
    )
    service.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "store",
        help=f"folder for the files of jobs (default: build/store); not used with {STORE_VARIABLE}",
    )
    for kind, name, port in (("grpc", "gRPC", 8001), ("metrics", "metrics", 8002)):
        service.add_argument(f"--{kind}-port", type=int, default=port, help=f"Triton's {name} port (default {port})")
    service.add_argument("--http-port", type=int, help="Triton's HTTP port (default: HTTP is off)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
