"""What a net can be exported as: a format and a precision, and which pairs of them exist."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import ExportError


class Format(StrEnum):
    """The kind of file, and with it the backend that serves it."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    OPENVINO = "openvino"

    @property
    def backend(self) -> str:
        """Triton's name of the backend."""
        return _BACKENDS[self]

    @property
    def file(self) -> str:
        """The file in a version directory that the backend is pointed at."""
        return _FILES[self]


class Precision(StrEnum):
    """What a net's convolutions compute in. Softmax, boxes and scaling are FP32 in all three."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Profile(StrEnum):
    """The machine that a repository is for."""

    CPU = "cpu"
    GPU = "gpu"
    TENSORRT = "tensorrt"


@dataclass(frozen=True)
class Variant:
    """One way to export a net."""

    format: Format
    precision: Precision

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"


_BACKENDS = {Format.ONNX: "onnxruntime", Format.TORCHSCRIPT: "pytorch", Format.OPENVINO: "openvino"}
_FILES = {Format.ONNX: "model.onnx", Format.TORCHSCRIPT: "model.pt", Format.OPENVINO: "model.xml"}

ONNX_FP32 = Variant(Format.ONNX, Precision.FP32)  # what every other variant is made from or held to
# What a CPU can be served with, best guess first; which of them is the fastest is measured, not guessed.
FASTEST_OF = (
    Variant(Format.OPENVINO, Precision.INT8),
    Variant(Format.OPENVINO, Precision.FP32),
    ONNX_FP32,
)


def resolve(profile: Profile, format: Format | None, precision: Precision | None) -> tuple[Variant, ...]:
    """The variants to choose from: one, when the caller or the profile decides; else the fastest is taken.

    On a CPU, with neither said, the candidates are `FASTEST_OF`. int8 alone means OpenVINO, which is three times
    faster with it than onnxruntime. A GPU gets FP16 from ONNX unless something else is said.

    Raises:
        ExportError: the format, the precision and the profile do not go together; the message says why.
    """
    if profile is Profile.CPU and format is None and precision is None:
        return FASTEST_OF
    if precision is None:
        precision = Precision.FP32 if profile is Profile.CPU else Precision.FP16
    if format is None:
        format = Format.OPENVINO if precision is Precision.INT8 and profile is Profile.CPU else Format.ONNX
    _refuse(profile, format, precision)
    return (Variant(format, precision),)


def _refuse(profile: Profile, format: Format, precision: Precision) -> None:
    if format is Format.TORCHSCRIPT and precision is Precision.INT8:
        raise ExportError(
            "torchscript has no int8: PyTorch's quantised operators run on CPUs only, and slower than OpenVINO's; "
            "use --format openvino or onnx"
        )
    if format is Format.OPENVINO and profile is not Profile.CPU:
        raise ExportError(
            f"openvino runs on CPUs only, not under --profile {profile}; use --format onnx or torchscript"
        )
    if precision is Precision.INT8 and profile is not Profile.CPU:
        raise ExportError(
            f"int8 is calibrated for CPUs (unsigned activations, which TensorRT refuses), not for --profile {profile}; "
            "use --precision fp16"
        )
    if format is not Format.ONNX and profile is Profile.TENSORRT:
        raise ExportError(f"--profile tensorrt is an accelerator of onnxruntime, not of {format}; use --format onnx")
