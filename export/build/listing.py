"""List the contents of a repository as a table."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from ..errors import ExportError
from ..triton_config import model_config
from ..variants import Format
from . import versions
from .versions import Version

HEAD = ("model", "version", "checkpoint", "sha256", "format", "precision", "weights", "MB", "export", "created")


def table(repository: Path) -> str:
    """Return a table with one line per version, and one for each model that is not exported.

    `*` marks the newest version, which is the one that Triton serves.

    Raises:
        ExportError: the folder does not exist or holds no model.
    """
    models = sorted(path.parent for path in repository.glob(f"*/{model_config.CONFIG_FILE}"))
    if not models:
        raise ExportError(f"{repository}: no models here; build a model repository with `python -m export models`")
    rows: list[tuple[object, ...]] = []
    for model in models:
        exported = versions.list_versions(model)
        rows += [_row(version, newest=version is exported[-1]) for version in exported]
        if not exported:
            rows.append((model.name, *[""] * (len(HEAD) - 1)))
    return str(tabulate(rows, HEAD, tablefmt="presto", disable_numparse=True))


def _row(version: Version, *, newest: bool) -> tuple[object, ...]:
    record = version.record
    size = sum(file.stat().st_size for file in version.folder.iterdir() if file.is_file())
    number = f"{version.number}{' *' if newest else ''}"
    damage = "" if version.is_intact() else "DAMAGED, "
    return (
        version.folder.parent.name,
        number,
        record.get("checkpoint", ""),
        str(record.get("checkpoint_sha256", ""))[:12],
        _format(version),
        record.get("precision", ""),
        record.get("weights", ""),
        f"{size / 1e6:.1f}",
        version.export,
        damage + str(record.get("created", "")),
    )


def _format(version: Version) -> str:
    """Return the format; for a plan that is still to be built, what is served until then."""
    format = str(version.record.get("format", ""))
    missing = format == Format.TENSORRT and not (version.folder / Format.TENSORRT.file).is_file()
    return f"{format}, {Format.ONNX} until its plan is built" if missing else format
