"""Writes the tables of README.md (options, settings, metrics, models) from the code; `--check` only compares.

Exit status: 0 up to date or written, 1 `--check` found a difference, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from avatar.options import OPTIONS
from gateway.metrics import METRICS
from gateway.settings import SETTINGS
from lipsync.tensors import MODELS, Tensor

README = Path(__file__).resolve().parent.parent / "README.md"


def options_table() -> str:
    """One row an option of the form."""
    rows = [f"| `{each.name}` | {f'`{each.default}`' if each.default else ''} | {each.about} |" for each in OPTIONS]
    return "\n".join(["| field | default | what it does |", "|---|---|---|", *rows])


def settings_table() -> str:
    """One row a setting of the gateway."""
    rows = [f"| `{each.variable}` | {each.default} | {each.about} |" for each in SETTINGS]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def metrics_table() -> str:
    """One row a metric of the gateway."""
    rows = [f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.about} |" for each in METRICS]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


def models_table() -> str:
    """One row a public model, its tensors with type, shape and meaning."""
    rows = [
        f"| `{model.name}` | {model.about} | {_tensors(model.inputs)} | {_tensors(model.outputs)} |" for model in MODELS
    ]
    return "\n".join(["| model | what it does | inputs | outputs |", "|---|---|---|---|", *rows])


def filled(text: str) -> str:
    """The README with its tables between the markers made anew."""
    tables = {
        "options": options_table(),
        "settings": settings_table(),
        "metrics": metrics_table(),
        "models": models_table(),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)"
        text, count = re.subn(pattern, lambda found, table=table: found[1] + table + found[2], text, flags=re.S)
        if count != 1:
            raise SystemExit(f"{README.name}: one pair of markers for {name} expected, found {count}")
    return text


def _tensors(tensors: Iterable[Tensor]) -> str:
    return "<br>".join(
        f"`{each.name}` {each.dtype} {list(each.shape)}{' (optional)' if each.optional else ''}: {each.about}"
        for each in tensors
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table is out of date")
    options = parser.parse_args()
    text = README.read_text()
    new = filled(text)
    if new != text and options.check:
        print("README.md: its tables are out of date; run: .venv/bin/python scripts/readme_tables.py", file=sys.stderr)
        return 1
    README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
