"""`python -m demo [run|up]`: see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lipsync.interpreter import explain_missing

try:
    from embedded.postgres import database_url, socket_folder

    from . import client, contact_sheet
    from .arguments import STORE_VARIABLE, parser
    from .errors import DemoError
    from .models import prepare, variant_args
    from .stack import URL_VARIABLE, Ports, check_ports, running
    from .supervisor import Supervisor
except ModuleNotFoundError as error:
    sys.exit(explain_missing("demo", error))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 1 failed, 2 wrong usage."""
    options = parser().parse_args(argv)
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
    note = f"STAND-INS for {result.stand_ins}: not the real networks" if result.stand_ins else ""
    contact_sheet.draw(video, options.speech, sheet, note)
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
    ports = Ports(options.port, options.grpc_port, options.metrics_port, options.http_port)
    check_ports(ports)  # now, because an export takes minutes
    _prepare(options)
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
        logs = [_shown(options.logs / f"{name}.log") for name in ("gateway", "triton")]
        print(f"logs: {', '.join(logs)}; each request is a line in the first one", flush=True)
        Supervisor(stack.children, _report).run()
    return 0


def _prepare(options: argparse.Namespace) -> None:
    if not options.no_export:
        prepare(options.weights, options.repository, variant_args(options), accept_license=options.accept_license)


def _report(line: str) -> None:
    print(f"demo: {line}", file=sys.stderr, flush=True)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    sys.exit(main())
