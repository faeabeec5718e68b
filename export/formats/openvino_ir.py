"""From an ONNX file to OpenVINO IR, for the `openvino` backend."""

from __future__ import annotations

from pathlib import Path

import openvino

from lipsync import __version__
from lipsync.tensors import Model

from ..errors import ExportError
from ..variants import Precision
from .onnx_model import Provenance


def save(model: Model, onnx: Path, path: Path, precision: Precision, provenance: Provenance) -> None:
    """Read the ONNX file and write `path` (.xml) with its weights (.bin) beside it; tensors keep their names.

    Args:
        model: its entry in the table.
        onnx: FP32, or with the int8 quantisers in it.
        path: the file to write.
        precision: FP16 stores the weights in half the size; a CPU computes with them in FP32 all the same.
        provenance: goes into the file's `talking_avatar` section.

    Raises:
        ExportError: OpenVINO cannot read it.
    """
    try:
        converted = openvino.Core().read_model(onnx)
    except Exception as error:  # OpenVINO's errors share no base of their own
        raise ExportError(f"{model.name}: OpenVINO cannot read the graph: {error}") from error
    notes = {
        "model": model.name,
        "checkpoint_sha256": provenance.sha256,
        "checkpoint": provenance.kind,
        "version": __version__,
    }
    for name, value in notes.items():
        converted.set_rt_info(value, ["talking_avatar", name])
    openvino.save_model(converted, path, compress_to_fp16=precision is Precision.FP16)
