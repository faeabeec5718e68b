"""The values of the command's options, from their texts. Each raises ArgumentTypeError or ValueError for argparse."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import RENDER_NAMES
from ._rotation import DNS
from ._schema import BACKGROUND_FILE


def out(text: str) -> Path:
    """Return the path of the output; `-` is standard output."""
    return Path("/dev/stdout" if text == "-" else text)


def setting(text: str) -> tuple[str, str]:
    """Return the name and the value of an option of the form."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"name=value expected, got {text!r}")
    if name not in RENDER_NAMES:
        raise argparse.ArgumentTypeError(f"unknown option {name!r}; the options are {', '.join(sorted(RENDER_NAMES))}")
    return name, value


def address(text: str) -> str:
    """Return host:port, or several, as `AvatarClient` takes them."""
    if ("://" in text and not text.startswith(DNS)) or ":" not in text:
        raise argparse.ArgumentTypeError(f"host:port expected, got {text!r} (use --url for the gateway's URL)")
    return text


def url(text: str) -> str:
    """Return the URL of the gateway."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"http://host:port expected, got {text!r}")
    return text


def seconds(text: str) -> float:
    """Return a time."""
    seconds = float(text)  # argparse reports its ValueError
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"seconds expected, got {text!r}")
    return seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the form; `chosen` reads them."""
    parser.add_argument(
        "--background",
        metavar="NAME",
        help="of an image: From Input (the default), White, Black, Green, Red, Blue, #rrggbb, or Transparent",
    )
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"another option of the form, repeatable: {', '.join(sorted(RENDER_NAMES))}; {BACKGROUND_FILE} takes "
        "a path",
    )


def chosen(options: argparse.Namespace) -> dict[str, str]:
    """Return the options of the form that were given, as text."""
    return ({"background": options.background} if options.background else {}) | dict(options.set)
