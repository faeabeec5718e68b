"""From a network in PyTorch to an ONNX file that gives the same answers, or no file at all."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from lipsync import tensors
from lipsync.faces import CANDIDATE_SCORE
from lipsync.tensors import Model

from . import onnx_file
from .errors import ExportError
from .graphs import S3FDGraph, Wav2LipGraph, fold_batch_norms
from .onnx_file import Array, Origin

OPSET = 17  # all that the two nets need; far below what the oldest server reads
GREY_LEVELS = 2  # a mouth may differ by; truncation to UINT8 makes one of a rounding
SCORE, PIXELS = 1e-3, 0.5  # a candidate's score and corners may differ by
BATCHES = (1, 3)
SIZES = ((96, 128), (160, 90))  # height, width; odd maps on the way in the second


def export_wav2lip(model: Model, graph: Wav2LipGraph, path: Path, origin: Origin) -> None:
    """Export `graph` as `model` (`wav2lip` or `wav2lip_gan`) to the ONNX file `path`.

    Raises:
        ExportError: the file's answers differ from PyTorch's; nothing is left under `path` then.
    """
    _export(model, graph, path, origin, [_faces(batch) for batch in BATCHES], _compare_mouths)


def export_s3fd(model: Model, graph: S3FDGraph, path: Path, origin: Origin) -> None:
    """Export `graph` as `model` to the ONNX file `path`; errors as `export_wav2lip`."""
    pictures = [_pictures(batch, *size) for batch, size in zip(BATCHES, SIZES, strict=True)]
    _export(model, graph, path, origin, pictures, _compare_candidates)


def _export(
    model: Model,
    graph: nn.Module,
    path: Path,
    origin: Origin,
    samples: Sequence[tuple[Array, ...]],
    compare: Callable[[Model, Sequence[Array], Sequence[Array]], None],
) -> None:
    folded = copy.deepcopy(graph).eval()
    fold_batch_norms(folded)
    with onnx_file.written(path) as temporary:
        _trace(model, folded, samples[-1], temporary)
        proto = onnx.load(temporary)
        onnx_file.finish(proto, model, origin)
        onnx.save(proto, temporary)
        session = onnx_file.session(temporary)
        for sample in samples:
            compare(model, _reference(graph, sample), onnx_file.run(session, model, sample))


def _trace(model: Model, graph: nn.Module, sample: Sequence[Array], path: Path) -> None:
    """Trace `graph` with `sample` into an ONNX file: the table's names, batch and varying sizes left open."""
    varying = {
        tensor.name: {0: "batch"} | {i + 1: f"{tensor.name}_{i}" for i, size in enumerate(tensor.shape) if size == -1}
        for tensor in (*model.inputs, *model.outputs)
    }
    with warnings.catch_warnings(), torch.no_grad():
        # The new exporter needs onnxscript on top. The tracing one does these two nets in two seconds,
        # every size left open (the checks below hold it to that), but warns that it is the older one.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph,
            tuple(torch.from_numpy(array) for array in sample),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in model.inputs],
            output_names=[tensor.name for tensor in model.outputs],
            dynamic_axes=varying,
        )


def _reference(graph: nn.Module, sample: Sequence[Array]) -> list[Array]:
    """What PyTorch answers, with denormals as zero like in the session."""
    with torch.inference_mode(), _flush_denormals():
        outputs = graph.eval()(*(torch.from_numpy(array) for array in sample))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@contextmanager
def _flush_denormals() -> Iterator[None]:
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _compare_mouths(model: Model, want: Sequence[Array], have: Sequence[Array]) -> None:
    _check_shapes(model, want, have)
    worst = np.abs(want[0].astype(int) - have[0]).max()
    if worst > GREY_LEVELS:
        raise ExportError(
            f"{model.name}: `mouth` differs from PyTorch's by {worst} grey levels, {GREY_LEVELS} at most allowed"
        )


def _compare_candidates(model: Model, want: Sequence[Array], have: Sequence[Array]) -> None:
    _check_shapes(model, want, have)
    (want_boxes, want_scores), (have_boxes, have_scores) = want, have
    score = np.abs(want_scores - have_scores).max()
    if not score <= SCORE:
        raise ExportError(f"{model.name}: `scores` differ from PyTorch's by {score:.2g}, {SCORE} at most allowed")
    for n, scores in enumerate(want_scores):
        # who is last of the 1024 may hang on a rounding
        for box in want_boxes[n][scores > max(CANDIDATE_SCORE, scores[-1] + SCORE)]:
            # equal scores may stand in another order, so each box is looked for among all
            distance = np.abs(have_boxes[n] - box).max(axis=1).min()
            if not distance <= PIXELS:
                raise ExportError(
                    f"{model.name}: a box of `boxes` differs from PyTorch's by {distance:.2g} pixels, "
                    f"{PIXELS} at most allowed"
                )


def _check_shapes(model: Model, want: Sequence[Array], have: Sequence[Array]) -> None:
    for tensor, wanted, got in zip(model.outputs, want, have, strict=True):
        if wanted.shape != got.shape or not tensor.accepts(got, batched=True):
            raise ExportError(
                f"{model.name}: `{tensor.name}` is {got.dtype} {list(got.shape)}, PyTorch's {list(wanted.shape)}"
            )


def _faces(batch: int) -> tuple[Array, Array]:
    noise = np.random.default_rng(batch)
    shape = (batch, tensors.FACE_SIZE, tensors.FACE_SIZE, 3)
    mel = noise.uniform(-4, 4, (batch, tensors.MEL_BANDS, tensors.WINDOW_COLUMNS)).astype(np.float32)
    return noise.integers(0, 256, shape, np.uint8), mel


def _pictures(batch: int, height: int, width: int) -> tuple[Array]:
    """Noise with a skin-coloured patch, so that detectors of any kind have something to say."""
    noise = np.random.default_rng(batch)
    pictures = noise.integers(0, 256, (batch, height, width, 3), np.uint8)
    pictures[:, height // 4 : -height // 4, width // 4 : -width // 4] = (90, 130, 200)  # BGR
    return (pictures,)
