"""`python -m gateway`: read the settings, open the port, serve.

Exit status: 0 stopped by a signal, 1 the port is in use, too few files may be open, ffmpeg or the certificate for
videos does not work, or the start failed, 2 a setting is invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from lipsync.interpreter import explain_missing

try:
    from avatar.settings import BadSetting, warn_of_names

    from . import logging_config
    from .settings import SETTINGS, Settings, load
except ModuleNotFoundError as error:
    sys.exit(explain_missing("gateway", error))

_STATUS = (
    "Exit status: 0 stopped by a signal, 1 the port is in use, too few files may be open, ffmpeg or the "
    "certificate for videos does not work, or the start failed, 2 a setting is invalid."
)


def _parser() -> argparse.ArgumentParser:
    rows = [_row(setting.variable, f"{setting.description} Default: {setting.default}") for setting in SETTINGS]
    rows = ["environment variables (the options above override them):", *rows, "", textwrap.fill(_STATUS, _width())]
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Serve the talking-avatar form over HTTP. The models run in Triton.",
        epilog="\n".join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # No types and defaults here: the settings validate the values and hold the defaults.
    parser.add_argument("--host", help="address to listen on (AVATAR_HOST)")
    parser.add_argument("--port", help="port to listen on (AVATAR_PORT)")
    parser.add_argument(
        "--triton",
        dest="triton_url",
        metavar="HOST:PORT",
        help="gRPC address of Triton, or several (AVATAR_TRITON_URL)",
    )
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (AVATAR_LOG_LEVEL)")
    return parser


def _row(name: str, text: str) -> str:
    """Return the help of one variable, wrapped at the width of the terminal, as argparse wraps its own."""
    lines = textwrap.wrap(text, _width() - 8, break_on_hyphens=False)
    return "\n".join((f"  {name}", *(f"        {line}" for line in lines)))


def _width() -> int:
    return max(40, min(100, shutil.get_terminal_size().columns) - 2)


def _fail(message: str, status: int) -> int:
    print(f"python -m gateway: {message}", file=sys.stderr)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway until a signal stops it; return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(**vars(arguments))
    except BadSetting as error:
        return _fail(str(error), 2)
    # here, because they load the whole application: --help and usage errors need not wait
    from avatar import tracing
    from avatar.media.start import prepare
    from jobs.keys import BadKeys, open_keys
    from jobs.settings import WorkerSettings
    from jobs.webhooks import Signer

    from . import descriptors, server

    logging_config.configure(settings.log_level, settings.log_format)
    warn_of_names(Settings, logging.getLogger("gateway"), WorkerSettings)
    try:
        open_keys(settings)
        Signer.of(settings)
        settings = descriptors.fit(settings)
    except (BadKeys, BadSetting) as error:
        return _fail(str(error), 2)
    except descriptors.TooFewDescriptors as error:
        return _fail(str(error), 1)
    if failure := asyncio.run(prepare(settings)):
        return _fail(failure, 1)
    try:
        listener = server.listen(settings.host, settings.port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        return _fail(f"cannot listen on {settings.host}:{settings.port}: {reason}", 1)
    try:
        with tracing.exporting(settings.otlp_endpoint, "talking-avatar-gateway"):
            server.serve(settings, listener)
    except SystemExit:  # uvicorn raises it where the application did not start; the log holds the reason
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
