"""Variants of an export: its format and precision, and which combinations are allowed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from .errors import ExportError


class Format(StrEnum):
    """A file format; it also decides which Triton backend serves the model."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"

    @property
    def backend(self) -> str:
        """Return Triton's name of the backend."""
        return _BACKENDS[self]

    @property
    def file(self) -> str:
        """Return the name of the file in a version directory that the backend loads."""
        return _FILES[self]

    @property
    def exported_file(self) -> str:
        """Return the name of the file that the exporter writes: a TensorRT plan is built from it where it runs."""
        return _FILES[Format.ONNX if self is Format.TENSORRT else self]


class Precision(StrEnum):
    """The precision of a network's convolutions. Softmax, box decoding and scaling are always FP32."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Profile(StrEnum):
    """The kind of machine that a repository is built for."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class Variant:
    """One way to export a network."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"


_BACKENDS = {
    Format.ONNX: "onnxruntime",
    Format.TORCHSCRIPT: "pytorch",
    Format.OPENVINO: "openvino",
    Format.TENSORRT: "tensorrt",
}
_FILES = {
    Format.ONNX: "model.onnx",
    Format.TORCHSCRIPT: "model.pt",
    Format.OPENVINO: "model.xml",
    Format.TENSORRT: "model.plan",
}

ONNX_FP32 = Variant(Format.ONNX, Precision.FP32)  # every other variant is made from it or compared with it
# The candidates on a CPU and on a GPU. Which of them is the fastest is measured on the machine at hand.
CPU_CANDIDATES = (
    Variant(Format.OPENVINO, Precision.INT8),
    Variant(Format.OPENVINO, Precision.FP32),
    ONNX_FP32,
)


GPU_CANDIDATES = (Variant(Format.TORCHSCRIPT, Precision.FP16), Variant(Format.ONNX, Precision.FP16))


def resolve(
    profile: Profile, format: Format | None, precision: Precision | None, on_gpu: Collection[Format] = ()
) -> tuple[Variant, ...]:
    """Return the candidate variants: one if the caller or the profile decides, otherwise several to measure.

    On a CPU without a given format and precision the candidates are `CPU_CANDIDATES`. int8 without a format means
    OpenVINO, which runs int8 three times faster than onnxruntime. For a GPU they are those of `GPU_CANDIDATES` that can
    be run on a GPU here (`on_gpu`), and without one TorchScript, whose convolutions need no transposed copies.

    Raises:
        ExportError: the format, the precision and the profile cannot be combined; the message says why.
    """
    if format is None and precision is None:
        if profile is Profile.CPU:
            return CPU_CANDIDATES
        if profile is Profile.GPU:
            return tuple(each for each in GPU_CANDIDATES if each.format in on_gpu) or GPU_CANDIDATES[:1]
    if precision is None:
        precision = Precision.FP32 if profile is Profile.CPU else Precision.FP16
    if format is None:
        format = _default_format(profile, precision)
    _check(profile, format, precision)
    return (Variant(format, precision),)


def _default_format(profile: Profile, precision: Precision) -> Format:
    if profile is Profile.GPU and precision is not Precision.INT8:
        return Format.TORCHSCRIPT
    return Format.OPENVINO if precision is Precision.INT8 and profile is Profile.CPU else Format.ONNX


def _check(profile: Profile, format: Format, precision: Precision) -> None:
    if format is Format.TORCHSCRIPT and precision is Precision.INT8:
        raise ExportError(
            "torchscript has no int8 variant: PyTorch's quantized operators run only on CPUs, slower than OpenVINO's; "
            "use --format openvino or onnx"
        )
    if format is Format.OPENVINO and profile is not Profile.CPU:
        raise ExportError(
            f"openvino runs on CPUs only, not under --profile {profile}; use --format onnx or torchscript"
        )
    if precision is Precision.INT8 and profile is not Profile.CPU:
        raise ExportError(
            f"int8 is calibrated for CPUs (unsigned activations, which TensorRT rejects), not for --profile {profile}; "
            "use --precision fp16"
        )
    if format is Format.TENSORRT and profile is Profile.CPU:
        raise ExportError("tensorrt runs on GPUs only; use --profile gpu --format tensorrt")
