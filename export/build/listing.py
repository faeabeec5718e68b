"""List the contents of a repository as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lipsync import tensors

from ..variants import Format
from . import versions
from .release import Release, model_folders
from .versions import Version

# the columns; without `wide` only those that fit into 80 characters
NARROW = ("model", "version", "jobs", "format", "weights", "score", "ms")
WIDE = (*NARROW, "MB", "checkpoint", "sha256", "export", "created")
_TIMED_BATCH = 8
# what a score is, by model; the others are PSNR in dB
_SCORES = {tensors.S3FD.name: "IoU {:.4f}", tensors.SEGMENTATION.name: "same {:.4f}"}


def table(repository: Path, *, wide: bool = False) -> str:
    """Return a table with one line per version of an exported model, and below it the names of all other models.

    `*` marks the newest version: Triton serves it to calls that name none. `jobs` is the share of the jobs that use a
    version; `score` and `ms` are the worst score of its report, and the milliseconds per frame in batches of 8.

    Raises:
        ExportError: the folder does not exist or holds no model.
    """
    models = model_folders(repository)
    rows: list[dict[str, object]] = []
    others = []
    release = Release.read(repository)
    for model in models:
        exported = versions.list_versions(model)
        rows += [_row(version, exported[-1], release) for version in exported]
        if not exported:
            others.append(model.name)
    head = WIDE if wide else NARROW
    cells = [[row[name] for name in head] for row in rows]
    text = str(tabulate(cells, head, tablefmt="presto", disable_numparse=True))
    if others:
        text += "\n\n" + textwrap.fill(f"Models without a network: {', '.join(others)}", 80)
    return text


def _jobs(version: Version, newest: Version, release: Release) -> float | None:
    """Return the share of the jobs that use a version; None if it is kept only."""
    tried = release.trial.get(version.folder.parent.name)
    if version is newest:
        return 1 - release.share if tried else 1.0
    return release.share if version.export == tried else None


def _row(version: Version, newest: Version, release: Release) -> dict[str, object]:
    record, report, jobs = version.record, version.report() or {}, _jobs(version, newest, release)
    size = sum(file.stat().st_size for file in version.folder.iterdir() if file.is_file())
    number = f"{version.number}{' *' if version is newest else ''}"
    return {
        "model": version.folder.parent.name,
        "version": number,
        "jobs": "" if jobs is None else f"{jobs:.0%}",
        "format": _format(version) if version.is_intact() else "DAMAGED",
        "weights": record.get("weights", ""),
        "score": _score(version.folder.parent.name, report),
        "ms": _milliseconds(report),
        "MB": f"{size / 1e6:.1f}",
        "checkpoint": record.get("checkpoint", ""),
        "sha256": str(record.get("checkpoint_sha256", ""))[:12],
        "export": version.export,
        "created": record.get("created", ""),
    }


def _score(model: str, report: Mapping[str, Any]) -> str:
    scores = [result["score"] for result in report.get("results", ()) if result.get("score") is not None]
    return _SCORES.get(model, "{:.1f} dB").format(min(scores)) if scores else ""


def _milliseconds(report: Mapping[str, Any]) -> str:
    """Return what the report says of its variant; onnx fp32 is timed under the name of its runtime."""
    times, precision = report.get("milliseconds_per_frame", {}), report.get("precision")
    found = times.get(f"{report.get('format')} {precision}") or times.get(f"onnxruntime {precision}")
    batches = report.get("batches", ())
    return f"{found[batches.index(_TIMED_BATCH)]:.3g}" if found and _TIMED_BATCH in batches else ""


def _format(version: Version) -> str:
    """Return format and precision; for a plan that is still to be built, what is served until then."""
    format = version.record.get("format", "")
    variant = f"{format} {version.record.get('precision', '')}"
    missing = format == Format.TENSORRT and not (version.folder / Format.TENSORRT.file).is_file()
    return f"{variant}, {Format.ONNX} until its plan is built" if missing else variant
