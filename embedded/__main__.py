"""`python -m embedded`: Triton in the foreground until Ctrl-C or SIGTERM.

Exit status: 0 stopped as asked, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .errors import EmbeddedError
from .server import Triton

DEFAULT_LOG = Path("build/triton.log")
MAX_PORT = 65_535


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    args = _parser().parse_args(argv)
    # SIGTERM ends the same way as Ctrl-C; both are set, since a shell's `&` starts us with SIGINT ignored
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        _serve(args)
    except KeyboardInterrupt:
        _say("stopped")
        return 0
    except (EmbeddedError, OSError) as error:
        print(f"embedded: {error}", file=sys.stderr)
        return 1
    return 1  # not reached: the server ends only by an error


def _serve(args: argparse.Namespace) -> None:
    triton = Triton(
        args.repository,
        args.http_port,
        args.grpc_port,
        args.metrics_port,
        args.log,
        args.threads,
        poll=args.poll,
        on_progress=_say,
    )
    _say(f"starting Triton on {args.repository}, log in {args.log}")
    with triton:
        _say(
            f"ready: gRPC {triton.grpc_address}, HTTP http://{triton.http_address}, "
            f"metrics http://{triton.metrics_address}/metrics"
        )
        try:
            triton.wait()
        except KeyboardInterrupt:
            _say("stopping")
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded",
        description="Run NVIDIA's Triton server, from its PyPI wheel, on 127.0.0.1 until Ctrl-C.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="model repository")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port", type=_port, default=port, metavar="N", help=f"{name} port; 0 finds a free one"
        )
    parser.add_argument("--log", type=Path, default=DEFAULT_LOG, metavar="FILE", help="the server's log, written anew")
    parser.add_argument("--threads", type=_at_least_one, metavar="N", help="threads of one model (default: all cores)")
    parser.add_argument(
        "--poll",
        type=_at_least_one,
        metavar="SECONDS",
        help="look at the repository again every so often and load what is new there, such as a new export's version "
        "(default: never)",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{port} is not a port: 0 to {MAX_PORT}")
    return port


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
