"""Writes the tables of README.md and docs/grpc.md (options, settings, metrics, models) from the code; `--check` only
compares.

Exit status: 0 up to date or written, 1 `--check` found a difference, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from avatar.options import OPTIONS
from avatar.settings import LiveSettings, Setting, described
from gateway.metrics import METRICS
from gateway.settings import SETTINGS
from lipsync.tensors import AVATAR, LIVE, MODELS, Model, Tensor

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = {option.name for option in OPTIONS}


def options_table() -> str:
    """One row an option of the form."""
    rows = [f"| `{each.name}` | {f'`{each.default}`' if each.default else ''} | {each.about} |" for each in OPTIONS]
    return "\n".join(["| field | default | what it does |", "|---|---|---|", *rows])


def settings_table(settings: Iterable[Setting] = SETTINGS) -> str:
    """One row a setting of the gateway."""
    rows = [f"| `{each.variable}` | {each.default} | {each.about} |" for each in settings]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def served_table() -> str:
    """One row a setting of the models `avatar` and `live`."""
    return settings_table(described(LiveSettings))


def metrics_table() -> str:
    """One row a metric of the gateway."""
    rows = [f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.about} |" for each in METRICS]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


def models_table() -> str:
    """One row a public model, its tensors with type, shape and meaning."""
    rows = [
        f"| `{model.name}` | {model.about} | {'<br>'.join(_inputs(model))} | {'<br>'.join(_cells(model.outputs))} |"
        for model in MODELS
    ]
    return "\n".join(["| model | what it does | inputs | outputs |", "|---|---|---|---|", *rows])


def tensors_tables() -> str:
    """A table a public model, one row a tensor; those that are the whole job first."""
    return "\n\n".join(_one_table(model) for model in sorted(MODELS, key=lambda model: not model.streams))


def choices_table() -> str:
    """One row an option, as an input of the streaming models."""
    rows = [
        f"| `{each.name}` | {f'`{each.default}`' if each.default else 'empty'} | {each.about}{_whose(each.name)} |"
        for each in OPTIONS
    ]
    return "\n".join(["| input | where it is left out | what it does |", "|---|---|---|", *rows])


DOCUMENTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {
        "options": options_table,
        "settings": settings_table,
        "metrics": metrics_table,
        "models": models_table,
    },
    "docs/grpc.md": {
        "tensors": tensors_tables,
        "choices": choices_table,
        "served": served_table,
    },
}


def filled(document: str, text: str) -> str:
    """A document with its tables between the markers made anew."""
    for name, table in DOCUMENTS[document].items():
        pattern, new = rf"(<!-- {name} -->\n\n).*?(\n\n<!-- end -->)", table()
        text, count = re.subn(pattern, lambda found, new=new: found[1] + new + found[2], text, flags=re.S)
        if count != 1:
            raise SystemExit(f"{document}: one pair of markers for {name} expected, found {count}")
    return text


def _cells(tensors: Iterable[Tensor]) -> list[str]:
    return [
        f"`{each.name}` {each.dtype} {list(each.shape)}{' (optional)' if each.optional else ''}: {each.about}"
        for each in tensors
    ]


def _inputs(model: Model) -> list[str]:
    """All of them; of a streaming model, whose texts are many, its files and sounds."""
    if not model.streams:
        return _cells(model.inputs)
    cells = _cells(each for each in model.inputs if each.dtype != "BYTES")
    return [*cells, "the form's texts, all optional: [docs/grpc.md](docs/grpc.md#every-tensor)"]


def _one_table(model: Model) -> str:
    how = "By `ModelStreamInfer` only, a session of requests." if model.sequences else "By `ModelStreamInfer` only."
    if not model.streams:
        batch = f"The first dimension of all tensors is the batch, at most {model.max_batch_size}."
        how = batch if model.max_batch_size else ""
    rows = [
        *(_row("in", model, each) for each in model.inputs if not (model.streams and each.name in CHOSEN)),
        *(["| in | the [options](#options) | BYTES | [1] | no | text |"] if model.streams else []),
        *(_row("out", model, each) for each in model.outputs),
    ]
    head = ["| | tensor | type | shape | needed | |", "|---|---|---|---|---|---|"]
    return "\n".join([f"**`{model.name}`**: {model.about}. {how}".rstrip(), "", *head, *rows])


def _row(side: str, model: Model, tensor: Tensor) -> str:
    shape = [-1, *tensor.shape] if model.max_batch_size else list(tensor.shape)
    needed = "" if side == "out" else "no" if tensor.optional else "yes"
    return f"| {side} | `{tensor.name}` | {tensor.dtype} | {shape} | {needed} | {tensor.about} |"


def _whose(name: str) -> str:
    return "" if any(each.name == name for each in LIVE.inputs) else f" Of `{AVATAR.name}` only."


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table is out of date")
    options = parser.parse_args()
    status = 0
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text("utf-8")
        new = filled(document, text)
        if options.check and new != text:
            again = "run: .venv/bin/python scripts/generate_doc_tables.py"
            print(f"{document}: its tables are out of date; {again}", file=sys.stderr)
            status = 1
        elif new != text:
            path.write_text(new, "utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
