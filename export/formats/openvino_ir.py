"""Convert an ONNX file to OpenVINO IR, for the `openvino` backend."""

from __future__ import annotations

from pathlib import Path

import openvino

from lipsync import __version__
from lipsync.tensors import Model

from ..checkpoints.provenance import Provenance
from ..errors import ExportError
from ..variants import Precision


def save(model: Model, onnx: Path, path: Path, precision: Precision, provenance: Provenance) -> None:
    """Convert the ONNX file to `path` (.xml) and a file of weights (.bin) next to it; tensors keep their names.

    Args:
        model: its entry in the table.
        onnx: FP32, or quantized to int8.
        path: the file to write.
        precision: FP16 halves the size of the stored weights; a CPU still computes in FP32.
        provenance: recorded in the file's `talking_avatar` section.

    Raises:
        ExportError: OpenVINO cannot read it.
    """
    try:
        converted = openvino.Core().read_model(onnx)
    except Exception as error:  # OpenVINO's errors have no common base class
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
