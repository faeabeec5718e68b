"""The command `avatar options`: the options of the form, as the running service describes them."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from ._cli_parser import DONE, Subparsers, add_timeout, add_url, url_of
from ._cli_parser import add_command as add
from ._console import Console
from ._errors import InvalidRequest, ServerError
from ._jobs import key_of
from ._jobs_http import Transport

SCHEMA = "/openapi.json"
_SECONDS = 30.0
_INDENT = "    "


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    command = add(
        commands,
        "options",
        "list the options of the form, with their values",
        _options,
        description="List the options that --set and --background take, as the gateway describes them.",
    )
    command.add_argument("name", nargs="*", metavar="NAME", help="only these options")
    add_url(command)
    add_timeout(command, _SECONDS)


def _options(options: argparse.Namespace, console: Console) -> int:
    transport = Transport(url_of(options), key_of(None), options.timeout, retries=1)
    try:
        fields = form_fields(transport.json("GET", SCHEMA))
    except InvalidRequest as error:
        if error.code != 404:
            raise
        raise InvalidRequest(
            f"{transport.url} does not describe itself: {error.message}; it may run with AVATAR_DOCS=false", 404
        ) from error
    if unknown := sorted(set(options.name) - fields.keys()):
        options.parser.error(f"unknown option {', '.join(unknown)}; the options are {', '.join(fields)}")
    chosen = {name: field for name, field in fields.items() if not options.name or name in options.name}
    rows = [
        {
            "name": name,
            "default": field.get("default"),
            "choices": field.get("enum", []),
            "description": field.get("description", ""),
        }
        for name, field in chosen.items()
    ]
    console.result({"options": rows}, "\n".join(map(_text, rows)))
    return DONE


def form_fields(document: Any) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401 - JSON
    """Return the schemas of the form's text fields by name, of the gateway's OpenAPI document. Raises ServerError."""
    try:
        body = document["paths"]["/"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        if reference := body.get("$ref"):
            body = document["components"]["schemas"][reference.rpartition("/")[2]]
        fields = body["properties"]
        return {name: field for name, field in fields.items() if field.get("format") != "binary"}
    except (KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"the description of the service has no form: {error!r}") from error


def _text(row: Mapping[str, Any]) -> str:
    """Return an option for a person, wrapped to the width of the terminal."""
    default = "" if row["default"] in (None, "") else f" (default {row['default']})"
    values = f": {', '.join(row['choices'])}" if row["choices"] else ""
    width = max(20, shutil.get_terminal_size().columns)
    head = textwrap.fill(f"{row['name']}{values}{default}", width, subsequent_indent=_INDENT)
    return f"{head}\n{textwrap.fill(row['description'], width, initial_indent=_INDENT, subsequent_indent=_INDENT)}"
