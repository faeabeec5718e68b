"""The command lines of trtexec."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from export.plans import trtexec_options
from export.plans.trtexec_options import TYPED, Version
from export.triton_config.profiles import PLAN_PROFILES, PlanProfile
from export.variants import Precision
from lipsync import tensors
from lipsync.tensors import S3FD, WAV2LIP

TEN: Version = (10, 13, 3)


def build(name: str, version: Version = TYPED, precision: Precision = Precision.FP16) -> list[str]:
    profiles = PLAN_PROFILES[name]
    return trtexec_options.build(Path("m.onnx"), Path("m.plan"), Path("t.cache"), profiles, precision, version)


def test_wav2lip_has_three_ranges_of_batches() -> None:
    options = build(WAV2LIP.name)
    assert options[:2] == ["--onnx=m.onnx", "--saveEngine=m.plan"]
    assert options[2:] == [
        "--builderOptimizationLevel=5",
        "--timingCacheFile=t.cache",
        "--skipInference",
        "--profile=0",
        "--minShapes=face:1x96x96x3,mel:1x80x16",
        "--optShapes=face:8x96x96x3,mel:8x80x16",
        "--maxShapes=face:16x96x96x3,mel:16x80x16",
        "--profile=1",
        "--minShapes=face:17x96x96x3,mel:17x80x16",
        "--optShapes=face:64x96x96x3,mel:64x80x16",
        "--maxShapes=face:64x96x96x3,mel:64x80x16",
        "--profile=2",
        "--minShapes=face:65x96x96x3,mel:65x80x16",
        "--optShapes=face:256x96x96x3,mel:256x80x16",
        "--maxShapes=face:256x96x96x3,mel:256x80x16",
    ]


def test_s3fd_has_a_range_for_parts_one_for_frames_and_one_for_4k() -> None:
    largest = [option for option in build(S3FD.name) if option.startswith("--maxShapes")]
    assert largest == [f"--maxShapes=image:{shape}" for shape in ("16x1024x1024x3", "4x1920x1920x3", "1x3840x3840x3")]


@pytest.mark.parametrize("model", [*tensors.LIVE_NETWORKS.values(), WAV2LIP, tensors.WAV2LIP_GAN, S3FD])
def test_every_profile_is_ordered_and_the_batches_have_no_gap(model: tensors.Model) -> None:
    def sizes(profile: PlanProfile) -> list[tuple[int, ...]]:
        return [shape for shapes in (profile.smallest, profile.usual, profile.largest) for shape in shapes.values()]

    for profile in PLAN_PROFILES[model.name]:
        for tensor in model.inputs:
            shapes = [shapes[tensor.name] for shapes in (profile.smallest, profile.usual, profile.largest)]
            assert all(sorted(column) == list(column) for column in zip(*shapes, strict=True))
        assert all(len(shape) > 1 for shape in sizes(profile))
    if model is not S3FD:
        ranges = [(p.smallest["face"][0], p.largest["face"][0]) for p in PLAN_PROFILES[model.name]]
        assert ranges[0][0] == 1
        assert all(after[0] == before[1] + 1 for before, after in pairwise(ranges))


def test_before_tensorrt_11_strong_typing_has_to_be_asked_for() -> None:
    assert "--stronglyTyped" in build(WAV2LIP.name, TEN)
    assert "--stronglyTyped" not in build(WAV2LIP.name, TYPED)
    for version in (TEN, TYPED):  # flags of weakly typed networks, which TensorRT 11 does not have
        assert not {"--fp16", "--best", "--int8"} & set(build(WAV2LIP.name, version))


def test_fp32_is_not_rounded_to_tf32() -> None:
    assert "--noTF32" in build(WAV2LIP.name, precision=Precision.FP32)
    assert "--noTF32" not in build(WAV2LIP.name)


def test_a_run_names_the_profile_the_files_and_their_shapes() -> None:
    inputs = {"face": ("input0", (1, 96, 96, 3)), "mel": ("input1", (1, 80, 16))}
    options = trtexec_options.run(Path("m.plan"), 2, inputs, "out.json", TEN)
    assert options == [
        "--loadEngine=m.plan",
        "--useProfile=2",
        "--shapes=face:1x96x96x3,mel:1x80x16",
        "--loadInputs=face:input0,mel:input1",
        "--exportOutput=out.json",
        "--iterations=1",
        "--duration=0",
        "--warmUp=0",
    ]
    typed = trtexec_options.run(Path("m.plan"), 2, inputs, "out.json", TYPED)
    assert typed == [*options, "--includeDataTransfers", "--noCudaGraph"]  # 11 leaves out transfers by default
