"""`python -m demo [run|up]`: see --help."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from . import client, contact_sheet
from .stack import Ports, StackError, add_variant, how, prepare, running

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"


def main() -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args()
    # SIGTERM is a clean stop, as Ctrl-C; both are set, since a shell's `&` starts us with SIGINT ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return up(options) if options.command == "up" else run(options)
    except KeyboardInterrupt:
        return 0 if options.command == "up" else 1
    except (StackError, client.FormError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> int:
    """Post the sample as the form, leave the video and its contact sheet in `--out`."""
    begin = time.monotonic()
    prepare(options.weights, options.repository, how(options), accept_licence=options.accept_licence)
    ready = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    video, picture = options.out / "demo.mp4", options.out / "demo.png"
    with running(options.repository, options.logs, Ports.free()) as stack:
        started = time.monotonic()
        print(f"posting {options.face.name} and {options.speech.name} to {stack.url}/")
        answer = client.post(stack.url, options.face, options.speech, options.background)
        posted = time.monotonic()
    video.write_bytes(answer.mp4)
    contact_sheet.draw(video, options.speech, picture)
    rows = [("weights and export", ready - begin), ("start Triton and gateway", started - ready)]
    rows += [(f"  {stage}", seconds) for stage, seconds in answer.stages.items()]
    rows += [("the form, whole", posted - started), ("stop, contact sheet", time.monotonic() - posted)]
    print("\n".join(f"{name:<28}{seconds:>8.2f} s" for name, seconds in rows))
    print("(indented: stages of the job; they overlap)")
    if answer.stand_ins:
        print(f"!! made with STAND-INS for {answer.stand_ins}: not what the real weights would show")
    print(f"{_shown(video)} ({answer.frames} frames), {_shown(picture)}")
    return 0


def up(options: argparse.Namespace) -> int:
    """Keep the service running until Ctrl-C; 1 when a part of it ends by itself."""
    prepare(options.weights, options.repository, how(options), accept_licence=options.accept_licence)
    ports = Ports(options.port, options.http_port, options.grpc_port, options.metrics_port)
    with running(options.repository, options.logs, ports, options.host) as stack:
        print(f"form: {stack.url}/   docs: {stack.url}/docs   Triton gRPC: 127.0.0.1:{ports.grpc}   Ctrl-C stops")
        idle = threading.Event()
        while not (name := stack.ended()):
            idle.wait(0.5)
    print(f"demo: {name} has ended by itself, see {_shown(options.logs)}", file=sys.stderr)
    return 1


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="A video from the samples, or the whole service; the models are exported first where need be.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("command", nargs="?", choices=("run", "up"), default="run", help="one video, or the service")
    paths = parser.add_argument_group("where things are")
    paths.add_argument("--weights", type=Path, default=ROOT / "weights", help="checkpoints (default: weights)")
    paths.add_argument("--repository", type=Path, default=ROOT / "build" / "repository", help="exported models")
    paths.add_argument("--logs", type=Path, default=ROOT / "build" / "logs", help="folder of the servers' logs")
    paths.add_argument(
        "--accept-licence",
        action="store_true",
        help="download the published weights where they are missing: accept, unasked, that those of Wav2Lip are for "
        "research and personal use only",
    )
    add_variant(parser.add_argument_group("what the models are exported as"))
    one = parser.add_argument_group("run")
    one.add_argument("--face", type=Path, default=SAMPLES / "face.png", help="picture or video")
    one.add_argument("--speech", type=Path, default=SAMPLES / "speech.wav", help="recording")
    one.add_argument("--background", default="From Input", help="the form's background")
    one.add_argument("--out", type=Path, default=ROOT / "out", help="folder of demo.mp4 and demo.png")
    service = parser.add_argument_group("up")
    service.add_argument("--host", default="127.0.0.1", help="address the gateway binds (default 127.0.0.1)")
    service.add_argument("--port", type=int, default=16000, help="the gateway's port")
    for kind, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        service.add_argument(f"--{kind}-port", type=int, default=port, help=f"Triton's {kind} port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
