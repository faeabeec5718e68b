"""Write the pages of docs/reference/ (options, settings, metrics, models) from the code; `--check` only compares.

Exit status: 0 up to date or written, 1 `--check` found a difference, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from avatar.form.fields import OPTION_FIELDS
from avatar.serving.metrics import MODEL_METRICS, ModelMetric
from avatar.settings import OLD_NAMES, LiveSettings, Setting, described
from gateway.metrics import METRICS
from gateway.settings import SETTINGS
from jobs.metric import Metric
from jobs.settings import ServiceSettings, WorkerSettings
from lipsync import limits
from lipsync.tensors import API_VERSION, AVATAR, LIVE, MODELS, Model, Tensor

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
COMMAND = ".venv/bin/python scripts/generate_doc_tables.py"
NOTICE = f"<!-- Generated from the code by `{COMMAND}`. Do not edit. -->"
WORKER_ONLY = described(WorkerSettings, left_out=ServiceSettings.model_fields)
CHOSEN = {option.name for option in OPTION_FIELDS}
# Names of earlier builds, accepted for one release; the last one is a variable of docker/export.sh.
OLD_SETTINGS = {**OLD_NAMES, "AVATAR_ACCEPT_LICENCE": "AVATAR_ACCEPT_LICENSE"}
OLD_METRICS = {"avatar_jobs_refused_total": "avatar_jobs_rejected_total"}


def options_page() -> str:
    """Return the page of the form's options, one row per option."""
    rows = [
        f"| `{each.name}` | {_default(each.default_text)} | {each.description}{_scope(each.name)} |"
        for each in OPTION_FIELDS
    ]
    return _page(
        "Form options",
        "Options are optional text fields of the [HTTP form](../guide/http.md), optional BYTES inputs of the models\n"
        "[`avatar`](../grpc/render.md) and [`live`](../grpc/live.md), and keyword arguments of the\n"
        "[Python client](../guide/python-client.md). A missing field and an empty text both mean the default.\n"
        "Coordinates are pixels of the working image: upright, and scaled down if it is larger than\n"
        "`AVATAR_WORK_MEGAPIXELS`. The other fields are described with the [form](../guide/http.md#fields).",
        _table(("option", "default", "meaning"), rows),
    )


def _default(text: str) -> str:
    return f"`{text}`" if text else "empty"


def settings_page() -> str:
    """Return the page of all settings: of the gateway, of workers, of the models in Triton, and their old names."""
    live = described(LiveSettings)
    return _page(
        "Settings",
        "Settings are environment variables, read once at start. [Settings](../operations/settings.md) explains which\n"
        "process reads which, and what to change for what. [Docker](../operations/docker.md#variables) has a few more\n"
        "variables of its own.",
        "## Gateway",
        "`python -m gateway --help` prints the same list.",
        _settings(SETTINGS),
        "## Workers",
        "`python -m jobs worker` reads these, and those of the gateway that concern jobs.",
        _settings(WORKER_ONLY),
        "## Models `avatar` and `live`",
        "The process that runs Triton reads these when the models load.",
        _settings(live),
        "## Old names",
        "These names of earlier builds are accepted for one release, with a warning in the log.",
        _table(("old name", "name"), (f"| `{old}` | `{new}` |" for old, new in OLD_SETTINGS.items())),
    )


def metrics_page() -> str:
    """Return the page of the metrics of the gateway and of the models, one row per metric."""
    return _page(
        "Metrics",
        "`GET /metrics` of the gateway returns these metrics, and `process_*` (CPU, memory, open files).\n"
        "[Metrics, health and logs](../operations/metrics.md) explains how to use them.",
        _metrics(METRICS),
        "## The models `avatar` and `live`",
        "Triton returns these on its own port for metrics (8002), next to its `nv_*`. Every series also has the label\n"
        "`process`, so that a model that is loaded again starts new ones.",
        _metrics(MODEL_METRICS),
        "## Old names",
        "These names of earlier builds are exported too, for one release.",
        _table(("old name", "name"), (f"| `{old}` | `{new}` |" for old, new in OLD_METRICS.items())),
    )


def models_page() -> str:
    """Return the page of all public models and their tensors; those that are the whole job come first."""
    models = sorted(MODELS, key=lambda model: not model.streams)
    overview = [f"| [`{model.name}`](#{model.name}) | {model.description} |" for model in models]
    return _page(
        "Models and tensors",
        f"The version of these tensors is {API_VERSION} ([what it means](../grpc/overview.md#version)). `-1` is a\n"
        "length that varies. Types are those of the KServe protocol. A UINT8 file is the bytes of the file. BYTES of\n"
        "shape [1] is one text in UTF-8.\n\n"
        "A call over a limit is rejected before anything is computed. The models that are ensembles (`detect_faces`,\n"
        "`lipsync`, `lipsync_gan`, `lipsync_clip`) have the limits of the models that they run\n"
        "([more](../grpc/errors-and-limits.md#limits-of-single-models)).",
        _table(("model", "purpose"), overview),
        *(part for model in models for part in _model(model)),
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "options.md": options_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "models.md": models_page,
}


def outdated(folder: Path = REFERENCE) -> dict[Path, str]:
    """Return the pages in `folder` that differ from the code, each with its right text."""
    pages = {folder / name: page() for name, page in PAGES.items()}
    return {path: text for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text}


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTICE, *parts]) + "\n"


def _table(columns: tuple[str, ...], rows: Iterable[str]) -> str:
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows])


def _settings(settings: Iterable[Setting]) -> str:
    rows = (f"| `{each.variable}` | {each.default} | {each.description} |" for each in settings)
    return _table(("variable", "default", "meaning"), rows)


def _metrics(metrics: Iterable[Metric | ModelMetric]) -> str:
    rows = (
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.description} |"
        for each in metrics
        if each.name not in OLD_METRICS
    )
    return _table(("metric", "kind", "labels", "meaning"), rows)


def _model(model: Model) -> list[str]:
    """Return the section of one model, with one row per tensor."""
    usage = "Call it by `ModelStreamInfer`, with a session of requests." if model.sequences else ""
    usage = usage or ("Call it by `ModelStreamInfer`." if model.streams else "")
    if model.max_batch_size:
        usage = f"The first dimension of every tensor is the batch, at most {model.max_batch_size}."
    rows = [
        *(_row("in", model, each) for each in model.inputs if not (model.streams and each.name in CHOSEN)),
        *(["| in | the [options](options.md) | BYTES | [1] | no | text |"] if model.streams else []),
        *(_row("out", model, each) for each in model.outputs),
    ]
    sentence = (
        f"{model.description[0].upper()}{model.description[1:]}."
        if not model.description.startswith(("s3fd", "face_"))
        else ""
    )
    sentence = sentence or f"{model.description}."
    allowed = [f"- {limit.text}" for limit in limits.LIMITS.get(model.name, ())]
    return [
        f"## `{model.name}`",
        f"{sentence} {usage}".rstrip(),
        _table(("", "tensor", "type", "shape", "required", "meaning"), rows),
        *(["Limits of a call:", "\n".join(allowed)] if allowed else []),
    ]


def _row(side: str, model: Model, tensor: Tensor) -> str:
    shape = [-1, *tensor.shape] if model.max_batch_size else list(tensor.shape)
    required = "" if side == "out" else "no" if tensor.optional else "yes"
    return f"| {side} | `{tensor.name}` | {tensor.dtype} | {shape} | {required} | {tensor.description} |"


def _scope(name: str) -> str:
    return "" if any(each.name == name for each in LIVE.inputs) else f" Not for `{LIVE.name}`, only `{AVATAR.name}`."


def main(arguments: list[str] | None = None) -> int:
    """Write or compare the pages; see the module for the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    options = parser.parse_args(arguments)
    pages = outdated()
    for path, text in pages.items():
        if options.check:
            print(f"{path.relative_to(ROOT)} is out of date; run: {COMMAND}", file=sys.stderr)
        else:
            path.write_text(text, "utf-8")
    return 1 if options.check and pages else 0


if __name__ == "__main__":
    sys.exit(main())
