"""Quantize an ONNX file from FP32 to int8 with NNCF's post-training quantization.

One quantized graph serves both formats: onnxruntime runs its Q/DQ pairs, and OpenVINO runs it as fast as a graph that
NNCF quantized as OpenVINO IR (measured on two cores with AMX: 3.1 ms per mouth either way).
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

import onnx

from lipsync import tensors
from lipsync.arrays import Batch
from lipsync.tensors import Model

from ..checkpoints.provenance import Provenance
from ..errors import ExportError
from . import onnx_model

# Nodes that stay FP32, as patterns of their names. `/net/` is the network itself; nothing outside it becomes int8.
_OUTSIDE = r"^(?!/net/).*"
SENSITIVE: Mapping[str, tuple[str, ...]] = {
    # The logits: their errors appear directly in the image. Stand-ins reached 24 dB with int8 logits, 42 without.
    tensors.WAV2LIP.name: (_OUTSIDE, r"/net/output_block/output_block\.1/.*"),
    tensors.WAV2LIP_GAN.name: (_OUTSIDE, r"/net/output_block/output_block\.1/.*"),
    tensors.S3FD.name: (
        _OUTSIDE,
        r"/net/conv._3_norm/.*",  # divides by a length that int8 rounds to zero
        r"/net/.*_mbox_.*",  # the scores and box corners
        r"/net/conv1_1/.*",  # the first layer; in int8 the stand-ins missed one face in three
        # few cells, so cheap (5 of 195 GFLOP); the heads for large faces read them, which costs 1 to 2 % of IoU
        r"/net/(fc6|fc7|conv6_1|conv6_2|conv7_1|conv7_2)/.*",
    ),
}


def save(model: Model, fp32: Path, path: Path, calibration: Sequence[Batch], provenance: Provenance) -> None:
    """Quantize the ONNX file `fp32` to `path`: weights per channel, activations per tensor.

    Args:
        model: its entry in the table.
        fp32: the FP32 export.
        path: the file to write.
        calibration: batches of inputs that cover the usual range of every value.
        provenance: recorded in the file.

    Raises:
        ExportError: NNCF cannot quantize the graph.
    """
    import nncf  # takes seconds to import, and only int8 needs it

    nncf.set_log_level(logging.ERROR)
    feeds = [dict(zip((t.name for t in model.inputs), batch, strict=True)) for batch in calibration]
    try:
        with _quiet():
            quantized = nncf.quantize(
                onnx.load(fp32),
                nncf.Dataset(feeds),
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(patterns=list(SENSITIVE[model.name]), validate=False),
                advanced_parameters=_whole_ranges(),
            )
    except Exception as error:  # NNCF's errors have no common base class
        raise ExportError(f"{model.name}: NNCF cannot quantize the graph: {error}") from error
    onnx_model.annotate(quantized, model, provenance)
    onnx.save(quantized, path)


def _whole_ranges() -> object:
    """Return parameters that keep the widest range of activations in any sample.

    By default NNCF averages the widest ranges of the samples, and would clip a bright image among dark ones.
    """
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress NNCF's progress bars, unless standard output is a terminal: they would fill a page of a log."""
    with nullcontext() if sys.stdout.isatty() else redirect_stdout(io.StringIO()):
        yield
