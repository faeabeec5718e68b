"""From FP32 to int8: NNCF's post-training quantisation of an ONNX file.

One quantised graph serves both formats: onnxruntime runs its Q/DQ pairs, and OpenVINO reads it and runs it as fast
as one that NNCF quantised as OpenVINO IR (measured on two cores with AMX: 3.1 ms a mouth either way).
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
from lipsync.tensors import Model

from ..errors import ExportError
from ..validation.samples import Batch
from . import onnx_model
from .onnx_model import Provenance

# What stays FP32, as patterns of node names. `/net/` is the network itself; what is around it never is int8.
_AROUND = r"^(?!/net/).*"
SENSITIVE: Mapping[str, tuple[str, ...]] = {
    # The logits, whose errors go straight into the picture: with them in int8 the stand-ins reach 24 dB, without 42.
    tensors.WAV2LIP.name: (_AROUND, r"/net/output_block/output_block\.1/.*"),
    tensors.WAV2LIP_GAN.name: (_AROUND, r"/net/output_block/output_block\.1/.*"),
    tensors.S3FD.name: (
        _AROUND,
        r"/net/conv._3_norm/.*",  # divides by a length that int8 rounds to nothing
        r"/net/.*_mbox_.*",  # scores and corners themselves
        r"/net/conv1_1/.*",  # the first look at the picture; in int8 the stand-ins lost a face of three
        # few cells, so cheap (5 of 195 GFLOP), and read by the heads for large faces: 1 to 2 % of IoU
        r"/net/(fc6|fc7|conv6_1|conv6_2|conv7_1|conv7_2)/.*",
    ),
}


def save(model: Model, fp32: Path, path: Path, calibration: Sequence[Batch], provenance: Provenance) -> None:
    """Quantise the ONNX file `fp32` to `path`: weights per channel, activations per tensor.

    Args:
        model: its entry in the table.
        fp32: the FP32 export.
        path: the file to write.
        calibration: batches of inputs that show the usual range of every value.
        provenance: goes into the file.

    Raises:
        ExportError: NNCF cannot quantise the graph.
    """
    import nncf  # seconds to import, and only int8 needs it

    nncf.set_log_level(logging.ERROR)
    feeds = [dict(zip((t.name for t in model.inputs), batch, strict=True)) for batch in calibration]
    try:
        with _quiet():
            quantised = nncf.quantize(
                onnx.load(fp32),
                nncf.Dataset(feeds),
                subset_size=len(feeds),
                ignored_scope=nncf.IgnoredScope(patterns=list(SENSITIVE[model.name]), validate=False),
                advanced_parameters=_whole_ranges(),
            )
    except Exception as error:  # NNCF's errors share no base of their own
        raise ExportError(f"{model.name}: NNCF cannot quantise the graph: {error}") from error
    onnx_model.annotate(quantised, model, provenance)
    onnx.save(quantised, path)


def _whole_ranges() -> object:
    """Activations keep the widest range that any sample showed; by default NNCF takes the mean of the samples' widest,
    and a bright picture among dark ones is cut off."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF's progress bars at a terminal only: in a log they are a page of boxes."""
    with nullcontext() if sys.stdout.isatty() else redirect_stdout(io.StringIO()):
        yield
