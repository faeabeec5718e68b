"""Write the client's scripts for shell completion from its parser, by shtab; `--check` only compares.

They are files of the package, so that the client needs nothing but Python to print them.

Exit status: 0 up to date or written, 1 `--check` found a difference, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import shtab

from avatar_client import _cli, _completion, _options

FOLDER = Path(_completion.__file__).parent
COMMAND = ".venv/bin/python -m scripts.client_completion"
NOTICE = f"# Generated from the parser by `{COMMAND}`. Do not edit.\n"
FILES = {"face", "speech", "files", "out"}  # arguments that are paths
_SET = "".join(f" {name}=" for name in sorted(_options.RENDER_NAMES)).strip()
_SENTENCE_END = re.compile(r"[;:,(]")
PREAMBLE = {
    "bash": f"""
_avatar_set() {{
  compopt -o nospace 2>/dev/null
  compgen -W "{_SET}" -- "$1"
}}
""",
    "zsh": f"""
_avatar_set() {{
  compadd -S '' -- {_SET}
}}
""",
    "fish": f"""
function _avatar_set
    string split ' ' '{_SET}'
end
""",
}
SET = {"bash": "_avatar_set", "zsh": "_avatar_set", "fish": "(_avatar_set)"}


def script(shell: str) -> str:
    """Return the script of a shell."""
    parser = _cli._parser()
    _mark(parser)
    text: str = shtab.complete(parser, shell, root_prefix="avatar", preamble=PREAMBLE[shell])
    first, rest = text.split("\n", 1)  # zsh's first line is `#compdef avatar`
    return "\n".join(line.rstrip() for line in f"{first}\n{NOTICE}{rest}".splitlines()) + "\n"


def _mark(parser: argparse.ArgumentParser) -> None:
    """Say of each argument of the parser and its commands what completes it, and shorten its help for a list."""
    for action in parser._actions:
        action.help = _SENTENCE_END.split(action.help or "")[0].strip()
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help for each in action._choices_actions}
            for name, command in action.choices.items():
                command.description = texts[name]
                _mark(command)
        elif action.dest == "set":
            action.complete = SET  # type: ignore[attr-defined]
        elif action.dest in FILES and action.metavar != "ID":
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def outdated() -> list[Path]:
    """Return the files that differ from what would be written."""
    files = {FOLDER / f"completion.{shell}": shell for shell in _completion.SHELLS}
    return [path for path, shell in files.items() if not path.exists() or path.read_text("utf-8") != script(shell)]


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    paths = outdated()
    for path in paths:
        if not check:
            path.write_text(script(path.suffix.removeprefix(".")), "utf-8")
        print(f"{'outdated' if check else 'written'}: {path.name}")
    if check and paths:
        print(f"write them by {COMMAND}", file=sys.stderr)
    return 1 if check and paths else 0


if __name__ == "__main__":
    sys.exit(main())
