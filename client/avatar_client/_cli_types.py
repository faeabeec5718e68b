"""The values of the command's options, from their texts. Each raises ArgumentTypeError or ValueError for argparse."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from ._options import RENDER_NAMES
from ._rotation import DNS
from ._schema import BACKGROUND_FILE

GRPC_PORT, GATEWAY_PORT = 8001, 16000  # by default
UNIX = "unix:"  # of gRPC's addresses of sockets that are files


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
    """Return host:port, or several, as `AvatarClient` takes them; a port that is left out is 8001."""
    return ",".join(_with_port(each.strip()) for each in text.split(","))


def _with_port(text: str) -> str:
    if text.startswith(UNIX):
        return text
    prefix = DNS if text.startswith(DNS) else ""
    place = text[len(prefix) :]
    if not place or "/" in place or " " in place:
        raise argparse.ArgumentTypeError(f"host:port expected, got {text!r} (use --url for the gateway's URL)")
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        return f"{prefix}{place}:{GRPC_PORT}"
    if ":" in host and not host.startswith("["):  # an IPv6 address
        return f"{prefix}[{place}]:{GRPC_PORT}"
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"host:port expected, with a port from 1 to 65535, got {text!r}")
    return text


def url(text: str) -> str:
    """Return the URL of the gateway; `host` and `host:port` get what is missing of `http://host:16000`."""
    if "://" in text:
        return web_url(text)
    parts = urlsplit(f"//{text}")
    try:
        complete = parts.port is not None or bool(parts.path)
    except ValueError:
        parts, complete = urlsplit(""), True
    if not parts.hostname or " " in text:
        raise argparse.ArgumentTypeError(f"http://host:port expected, got {text!r}")
    return f"http://{text}" if complete else f"http://{text}:{GATEWAY_PORT}"


def web_url(text: str) -> str:
    """Return a URL of HTTP."""
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
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"another option of the form, repeatable: {', '.join(sorted(RENDER_NAMES))}; {BACKGROUND_FILE} takes "
        "a path; `avatar options` explains them",
    )


def chosen(options: argparse.Namespace) -> dict[str, str]:
    """Return the options of the form that were given, as text."""
    return ({"background": options.background} if options.background else {}) | dict(options.set)
