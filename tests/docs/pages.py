"""The documents of the project: their text, code blocks and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def _read() -> dict[str, str]:
    """Return the text of every document by its path from the root."""
    paths = [*ROOT.glob("*.md"), ROOT / "client" / "README.md", *DOCS.rglob("*.md")]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


PAGES = _read()
REFERENCE = {name: text for name, text in PAGES.items() if name.startswith("docs/reference/")}


def blocks(language: str, text: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def command_lines(text: str) -> list[list[str]]:
    """Return the commands of a document, split into words: those in `sh` blocks, and those in indented blocks."""
    # an indented block follows a blank line and is not part of a list
    indented = re.findall(r"^\n((?: {4,6}[^ \n-].*\n)+)", text, re.M)
    lines = "\n".join([*blocks("sh", text), *indented]).replace("\\\n", " ").splitlines()
    plain = [
        line for line in lines if re.match(r" *(make|avatar|perf_analyzer|docker|curl|python|\.venv/bin/\w+) ", line)
    ]
    return [shlex.split(line, comments=True) for line in plain]


COMMANDS = [(name, words) for name, text in PAGES.items() for words in command_lines(text)]


def python_commands() -> list[tuple[str, ...]]:
    """Return the words after `python -m` of every such command in the documents, in blocks and in sentences.

    Those of integrations/ import libraries for seconds; tests/integrations runs them.
    """
    inline = [shlex.split(each) for text in PAGES.values() for each in re.findall(r"`(python -m [^`\n]+)`", text)]
    commands = set()
    for words in (*(words for _, words in COMMANDS), *inline):
        if words[1:2] == ["-m"] and words[0].endswith("python"):
            commands.add(tuple(words[2:]))
    return sorted(each for each in commands if not each[0].startswith("integrations."))
