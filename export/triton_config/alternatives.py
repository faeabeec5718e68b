"""The two configurations of a network whose plan is built where it runs: for its ONNX file, and for the plan.

NVIDIA's Python has no protobuf, so the exporter writes both texts, and the step that builds the plan only copies one.
Triton reads `config.pbtxt` and ignores the folder `configs`. So a repository can be served at any time: from the ONNX
file until there is a plan.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import ExportError
from ..files import atomic_write
from ..variants import Format

CONFIG_FILE = "config.pbtxt"
FOLDER = "configs"  # in the model's folder; its name is Triton's for configurations that are chosen by name
FORMATS = (Format.ONNX, Format.TENSORRT)


def write(model: Path, version: Path, render: Callable[[Format], str]) -> None:
    """Write both configurations of the model's folder, and make the one current that fits its newest version.

    Args:
        model: the model's folder.
        version: its newest version directory, with or without a plan.
        render: returns the text for a format.
    """
    for format in FORMATS:
        _write(model / FOLDER / f"{format}.pbtxt", render(format))
    activate(model, Format.TENSORRT if (version / Format.TENSORRT.file).is_file() else Format.ONNX)


def activate(model: Path, format: Format) -> None:
    """Make the configuration for a format the current one, by a rename.

    Raises:
        ExportError: the exporter has not written it.
    """
    source = model / FOLDER / f"{format}.pbtxt"
    try:
        text = source.read_text("utf-8")
    except OSError as error:
        raise ExportError(f"{source}: {error.strerror}; export the models again") from error
    _write(model / CONFIG_FILE, text)


def remove(model: Path) -> None:
    """Remove the two configurations of a model that is no longer exported for a plan."""
    shutil.rmtree(model / FOLDER, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text("utf-8") != text:
        with atomic_write(path) as temporary:
            temporary.write_text(text, "utf-8")
