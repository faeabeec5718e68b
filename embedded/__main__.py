"""`python -m embedded`: run Triton in the foreground until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from lipsync.interpreter import explain_missing

try:
    from . import access
    from .errors import EmbeddedError
    from .server import START_SECONDS, Triton
except ModuleNotFoundError as error:
    sys.exit(explain_missing("embedded", error))

EPILOG = (
    "Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 the start failed, 2 wrong usage, 3 the process of a model died, "
    "4 a model hangs, 5 the server ended by itself. With 3, 4 and 5 nothing is left running: start it again."
)
DEFAULT_LOG = Path("build/triton.log")
DEFAULT_TOKEN_FILE = Path("build/triton.token")
MAX_PORT = 65_535


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    args = _parser().parse_args(argv)
    # SIGTERM has the same effect as Ctrl-C. SIGINT is set too, because a shell's `&` starts processes that ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        _serve(args)
    except KeyboardInterrupt:
        _print_line("stopped")
        return 0
    except EmbeddedError as error:
        print(f"embedded: {error}", file=sys.stderr, flush=True)
        return error.exit_status
    except (OSError, ValueError) as error:  # ValueError: the token of the environment
        print(f"embedded: {error}", file=sys.stderr)
        return 1
    return 1  # not reached: waiting ends with an exception


def _serve(args: argparse.Namespace) -> None:
    triton = Triton(
        args.repository,
        args.http_port,
        args.grpc_port,
        args.metrics_port,
        args.log,
        args.threads,
        poll=args.poll,
        canaries=True,
        token=os.environ.get(access.TOKEN_VARIABLE) or None,
        on_progress=_print_line,
        start_timeout=args.start_timeout,
    )
    _print_line(f"starting Triton with {args.repository}, log in {args.log}")
    with triton:
        http = "off" if args.http_port is None else f"http://{triton.http_address}"
        try:
            access.write_token(args.token_file, triton.token)
            _print_line(
                f"ready: gRPC {triton.grpc_address}, HTTP {http}, metrics http://{triton.metrics_address}/metrics, "
                f"token in {args.token_file}"
            )
            triton.wait()
        except KeyboardInterrupt:
            _print_line("stopping, waiting for requests in flight")
            raise
        finally:
            access.remove_token(args.token_file, triton.token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded",
        description="Run NVIDIA's Triton server from its PyPI wheel on 127.0.0.1, until Ctrl-C or SIGTERM.",
        epilog=EPILOG,
    )
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="model repository to serve")
    parser.add_argument(
        "--http-port", type=_port, metavar="N", help="port for HTTP; 0 chooses a free port (default: HTTP is off)"
    )
    for name, label, port in (("grpc", "gRPC", 8001), ("metrics", "Prometheus metrics", 8002)):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            default=port,
            metavar="N",
            help=f"port for {label}; 0 chooses a free port (default: {port})",
        )
    parser.add_argument(
        "--log",
        type=Path,
        default=DEFAULT_LOG,
        metavar="FILE",
        help=f"log file of the server; that of the run before gets the suffix .1 (default: {DEFAULT_LOG})",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        default=DEFAULT_TOKEN_FILE,
        metavar="FILE",
        help="file for the token that shared memory and the endpoints for operators require, readable for this user "
        f"only (default: {DEFAULT_TOKEN_FILE}). The token is that of {access.TOKEN_VARIABLE}, or else random",
    )
    parser.add_argument(
        "--threads", type=_positive_int, metavar="N", help="threads per model (default: all cores of this process)"
    )
    parser.add_argument(
        "--poll",
        type=_positive_int,
        metavar="SECONDS",
        help="check the repository for changes every SECONDS and load them, such as the version of a new export "
        "(default: load once, at the start)",
    )
    parser.add_argument(
        "--start-timeout",
        type=_positive_int,
        default=int(START_SECONDS),
        metavar="SECONDS",
        help=f"time for all models to load (default: {START_SECONDS:.0f}). Networks that are compiled at their first "
        "start (docs/guide/gpu.md) take minutes",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{port} is not a port; use 0 to {MAX_PORT}")
    return port


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too small; use at least 1")
    return number


def _print_line(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
