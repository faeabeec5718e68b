"""The command `avatar completion`: prints a script that completes the commands in a shell.

The scripts are files of this package. `scripts/client_completion.py` of the checkout writes them from the parser with
shtab, so that who installs the client needs neither shtab nor anything else.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ._cli_parser import DONE, Subparsers
from ._cli_parser import add_command as add
from ._console import Console

SHELLS = ("bash", "zsh", "fish")
_EPILOG = """To complete in every shell, add its line to the file that it reads first: ~/.bashrc, ~/.zshrc (after \
compinit) or ~/.config/fish/config.fish.

  eval "$(avatar completion bash)"
  eval "$(avatar completion zsh)"
  avatar completion fish | source"""


def add_command(commands: Subparsers) -> None:
    """Add the command to the parser of `avatar`."""
    command = add(
        commands,
        "completion",
        "print a script that completes these commands",
        _completion,
        description="Print a script that completes the commands, their options and files in a shell.",
        epilog=_EPILOG,
    )
    command.add_argument("shell", nargs="?", choices=SHELLS, help="the shell (default: that of the variable SHELL)")


def script(shell: str) -> str:
    """Return the script of a shell."""
    return Path(__file__).with_name(f"completion.{shell}").read_text("utf-8")


def _completion(options: argparse.Namespace, console: Console) -> int:
    shell = options.shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        options.parser.error(f"give the shell, one of {', '.join(SHELLS)}")
    text = script(shell)
    console.result({"shell": shell, "script": text}, text.rstrip("\n"))
    return DONE
