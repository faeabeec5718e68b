"""`python -m gateway`: read the settings, take the port, serve.

Exit status: 0 stopped by a signal, 1 the port is taken or the start failed, 2 a setting does not do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from avatar.settings import BadSetting
from gateway.settings import SETTINGS, load

from . import logging_config


def _parser() -> argparse.ArgumentParser:
    width = max(len(setting.variable) for setting in SETTINGS)
    rows = [f"  {row.variable:<{width}}  {row.about} Default: {row.default}" for row in SETTINGS]
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Serve the talking-avatar form over HTTP; the models run in Triton.",
        epilog="environment (the options above come first):\n" + "\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # No types and defaults here: the settings validate and complete them.
    parser.add_argument("--host", help="address to listen on (AVATAR_HOST)")
    parser.add_argument("--port", help="port to listen on (AVATAR_PORT)")
    parser.add_argument("--triton", metavar="HOST:PORT", help="Triton's gRPC address (AVATAR_TRITON)")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (AVATAR_LOG_LEVEL)")
    return parser


def _fail(message: str, status: int) -> int:
    print(f"python -m gateway: {message}", file=sys.stderr)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway; the exit status is returned."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(**vars(arguments))
    except BadSetting as error:
        return _fail(str(error), 2)
    from gateway import server  # brings the whole application: seconds that --help and mistakes need not wait for

    logging_config.configure(settings.log_level, settings.log_format)
    try:
        listener = server.listen(settings.host, settings.port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {reason}", 1)
    try:
        server.serve(settings, listener)
    except SystemExit:  # uvicorn's way to say that the application did not start; the log says why
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
