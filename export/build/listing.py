"""List the contents of a repository as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from lipsync import tensors

from ..variants import Format
from . import versions
from .release import Release, model_folders
from .versions import Version

HEAD = (
    *("model", "version", "jobs", "checkpoint", "sha256", "format", "precision", "weights"),
    *("score", "ms", "MB", "export", "created"),
)
_TIMED_BATCH = 8
# what a score is, by model; the others are PSNR in dB
_SCORES = {tensors.S3FD.name: "IoU {:.4f}", tensors.SEGMENTATION.name: "same {:.4f}"}


def table(repository: Path) -> str:
    """Return a table with one line per version, and one for each model that is not exported.

    `*` marks the newest version: Triton serves it to calls that name none. `jobs` is the share of the jobs that use a
    version; `score` and `ms` are the worst score of its report, and the milliseconds per frame in batches of 8.

    Raises:
        ExportError: the folder does not exist or holds no model.
    """
    models = model_folders(repository)
    rows: list[tuple[object, ...]] = []
    release = Release.read(repository)
    for model in models:
        exported = versions.list_versions(model)
        rows += [_row(version, exported[-1], release) for version in exported]
        if not exported:
            rows.append((model.name, *[""] * (len(HEAD) - 1)))
    return str(tabulate(rows, HEAD, tablefmt="presto", disable_numparse=True))


def _jobs(version: Version, newest: Version, release: Release) -> float | None:
    """Return the share of the jobs that use a version; None if it is kept only."""
    tried = release.trial.get(version.folder.parent.name)
    if version is newest:
        return 1 - release.share if tried else 1.0
    return release.share if version.export == tried else None


def _row(version: Version, newest: Version, release: Release) -> tuple[object, ...]:
    record, report, jobs = version.record, version.report() or {}, _jobs(version, newest, release)
    size = sum(file.stat().st_size for file in version.folder.iterdir() if file.is_file())
    number = f"{version.number}{' *' if version is newest else ''}"
    damage = "" if version.is_intact() else "DAMAGED, "
    return (
        version.folder.parent.name,
        number,
        "" if jobs is None else f"{jobs:.0%}",
        record.get("checkpoint", ""),
        str(record.get("checkpoint_sha256", ""))[:12],
        _format(version),
        record.get("precision", ""),
        record.get("weights", ""),
        _score(version.folder.parent.name, report),
        _milliseconds(report),
        f"{size / 1e6:.1f}",
        version.export,
        damage + str(record.get("created", "")),
    )


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
    """Return the format; for a plan that is still to be built, what is served until then."""
    format = str(version.record.get("format", ""))
    missing = format == Format.TENSORRT and not (version.folder / Format.TENSORRT.file).is_file()
    return f"{format}, {Format.ONNX} until its plan is built" if missing else format
