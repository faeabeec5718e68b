"""`wav2lip` as a TensorRT plan: frames per second, by NVIDIA's `trtexec` where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from export.errors import ExportError
from export.plans.trtexec import PROGRAM, Trtexec
from export.plans.trtexec_options import TYPED, Version
from export.triton_config.profiles import PLAN_PROFILES, PlanProfile
from export.variants import Precision
from lipsync.tensors import WAV2LIP

from ..errors import BenchError
from .errors import LeftOut

_RUN_SECONDS = 120.0  # limit for one measurement, which loads the plan first
_THROUGHPUT = re.compile(r"Throughput: ([\d.]+) qps")


def measure(onnx: Path, precision: Precision, batches: Sequence[int], seconds: float) -> Iterator[tuple[int, float]]:
    """Build a plan of an ONNX file, and yield the frames per second of each batch size.

    Raises:
        BenchError: trtexec did not measure.
        LeftOut: there is no TensorRT here.
    """
    program = Path(shutil.which("trtexec") or PROGRAM)
    if not program.is_file():
        raise LeftOut("TensorRT is not here (no trtexec); measure NVIDIA's container with --url")
    profiles = PLAN_PROFILES[WAV2LIP.name]
    plan = onnx.with_suffix(".plan")
    try:
        trtexec = Trtexec(program)
        trtexec.build(onnx, plan, plan.with_suffix(".timing"), profiles, precision, WAV2LIP.name)
    except ExportError as error:
        raise BenchError(str(error)) from error
    for batch in batches:
        command = [str(program), *options(plan, profiles, batch, seconds, trtexec.version)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_SECONDS)
        found = _THROUGHPUT.search(done.stdout)
        if done.returncode or not found:
            raise BenchError(f"trtexec did not measure batches of {batch}: {done.stderr.strip()[-200:]}")
        yield batch, float(found[1]) * batch


def options(plan: Path, profiles: Sequence[PlanProfile], batch: int, seconds: float, version: Version) -> list[str]:
    """Return the options of trtexec that run a plan again and again, without copies to and from the GPU.

    Raises:
        ValueError: no optimization profile has this batch size.
    """
    fitting = [number for number, profile in enumerate(profiles) if _has_batch(profile, batch)]
    if not fitting:
        raise ValueError(f"no optimization profile of wav2lip has batches of {batch}")
    shapes = [f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape)))}" for tensor in WAV2LIP.inputs]
    return [
        f"--loadEngine={plan}",
        f"--useProfile={fitting[0]}",
        f"--shapes={','.join(shapes)}",
        f"--duration={seconds:g}",
        "--useCudaGraph",
        *(["--noDataTransfers"] if version < TYPED else []),
    ]


def _has_batch(profile: PlanProfile, batch: int) -> bool:
    return all(shape[0] <= batch <= profile.largest[name][0] for name, shape in profile.smallest.items())
