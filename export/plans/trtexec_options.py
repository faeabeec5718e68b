"""The command lines of `trtexec`, NVIDIA's builder and runner of TensorRT plans. Pure functions.

Its options are those of samples/common/sampleOptions.cpp in NVIDIA/TensorRT, 10.0 to 11.1. It rejects options that it
does not know, so what only some releases have is decided by the version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..triton_config.profiles import PlanProfile
from ..variants import Precision

Version = tuple[int, int, int]

OLDEST: Version = (10, 0, 0)  # older releases count their versions differently and lack UINT8 outputs
TYPED: Version = (11, 0, 0)  # from here on every network is strongly typed, and runs leave transfers out by default
# The builder searches longest: a plan is built once and used for months.
OPTIMIZATION_LEVEL = 5


def build(
    onnx: Path,
    plan: Path,
    timing_cache: Path,
    profiles: Sequence[PlanProfile],
    precision: Precision,
    version: Version,
) -> list[str]:
    """Return the options that build `plan` from `onnx`.

    The graph decides the precision of every layer: the exporter has already converted it.

    Args:
        onnx: the exported network, of FP32 and FP16 tensors.
        plan: the file to write.
        timing_cache: measurements of kernels, read and written; a later build repeats none of them.
        profiles: the ranges of shapes to optimize for, in the order of their numbers.
        precision: of the export. FP32 stays FP32: TensorRT would round it to TF32, which misses the accuracy of FP32.
        version: of TensorRT.
    """
    return [
        f"--onnx={onnx}",
        f"--saveEngine={plan}",
        *(["--stronglyTyped"] if version < TYPED else []),
        *(["--noTF32"] if precision is Precision.FP32 else []),
        f"--builderOptimizationLevel={OPTIMIZATION_LEVEL}",
        f"--timingCacheFile={timing_cache}",
        "--skipInference",
        # the three options of a profile have to follow its number
        *(option for number, profile in enumerate(profiles) for option in _profile(number, profile)),
    ]


def run(
    plan: Path, profile: int, inputs: Mapping[str, tuple[str, Sequence[int]]], output: str, version: Version
) -> list[str]:
    """Return the options that run `plan` once on files.

    Args:
        plan: the plan.
        profile: number of the optimization profile.
        inputs: name to the file with the tensor's bytes and the tensor's shape, with batch. File names have neither
            commas nor colons.
        output: the JSON file to write.
        version: of TensorRT.
    """
    return [
        f"--loadEngine={plan}",
        f"--useProfile={profile}",
        f"--shapes={_shapes({name: shape for name, (_, shape) in inputs.items()})}",
        f"--loadInputs={','.join(f'{name}:{file}' for name, (file, _) in inputs.items())}",
        f"--exportOutput={output}",
        "--iterations=1",
        "--duration=0",
        "--warmUp=0",
        *(["--includeDataTransfers", "--noCudaGraph"] if version >= TYPED else []),
    ]


def _profile(number: int, profile: PlanProfile) -> list[str]:
    return [
        f"--profile={number}",
        f"--minShapes={_shapes(profile.smallest)}",
        f"--optShapes={_shapes(profile.usual)}",
        f"--maxShapes={_shapes(profile.largest)}",
    ]


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    """Return shapes in its notation: `face:1x96x96x3,mel:1x80x16`."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
