"""Build and run plans with `trtexec`, which NVIDIA's Triton image contains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lipsync.arrays import Array, Batch
from lipsync.tensors import Model, Tensor

from ..errors import ExportError
from ..files import ProgressCallback
from ..triton_config.profiles import PlanProfile
from ..variants import Precision
from . import process, trtexec_options
from .trtexec_options import OLDEST, Version

PROGRAM = Path("/usr/src/tensorrt/bin/trtexec")  # in NVIDIA's Triton image
BUILD_SECONDS = 3600.0  # that the build of one plan may take
_RUN_SECONDS = 600.0  # for a run on one batch, which loads the plan first
_HELP_SECONDS = 120.0
_SHOWN_LETTERS = 100  # of a line of its output, in a line of progress
_LEAST_FREE_BYTES = 64 << 20  # with less, a failed build is blamed on the disk
_BANNER = re.compile(r"\[TensorRT v(\d+)\]")


class Trtexec:
    """NVIDIA's `trtexec`.

    Args:
        program: the file.
        on_progress: takes one line of progress at a time.
        timeout: seconds that the build of one plan may take.

    Raises:
        ExportError: there is no such program, or its TensorRT is too old.
    """

    def __init__(
        self, program: Path = PROGRAM, on_progress: ProgressCallback = print, timeout: float = BUILD_SECONDS
    ) -> None:
        self._program, self._on_progress, self._timeout = program, on_progress, timeout
        self.version = find_version(program)

    def build(
        self,
        onnx: Path,
        plan: Path,
        timing_cache: Path,
        profiles: Sequence[PlanProfile],
        precision: Precision,
        name: str,
    ) -> None:
        """Build `plan`; arguments as of `trtexec_options.build`, and the name of the network for progress and errors.

        Raises:
            ExportError: the build failed, with trtexec's last lines.
        """
        options = trtexec_options.build(onnx, plan, timing_cache, profiles, precision, self.version)

        def report(seconds: float, line: str) -> None:
            self._on_progress(f"{name}: building the plan, {seconds:.0f} s: {line[:_SHOWN_LETTERS]}")

        try:
            process.run([str(self._program), *options], plan.parent, self._timeout, report)
        except ExportError as error:
            free = shutil.disk_usage(plan.parent).free
            if free < _LEAST_FREE_BYTES:
                raise ExportError(
                    f"{name}: the disk of {plan.parent} is full, {free >> 20} MiB are free; {error}"
                ) from error
            raise ExportError(f"{name}: {error}") from error
        if not plan.is_file() or not plan.stat().st_size:
            raise ExportError(f"{name}: {self._program} ended without an error, but wrote no plan")

    def load(self, model: Model, plan: Path, profile: int, folder: Path) -> Callable[[Batch], list[Array]]:
        """Return a run of a plan in one of its optimization profiles; its files are written into `folder`.

        The run raises ExportError if the plan fails or returns anything but the outputs of the table.
        """

        def run(batch: Batch) -> list[Array]:
            inputs = {}
            for number, (tensor, array) in enumerate(zip(model.inputs, batch, strict=True)):
                np.ascontiguousarray(array).tofile(folder / f"input{number}")
                inputs[tensor.name] = (f"input{number}", array.shape)
            options = trtexec_options.run(plan, profile, inputs, "outputs.json", self.version)
            try:
                process.run([str(self._program), *options], folder, _RUN_SECONDS)
            except ExportError as error:
                raise ExportError(f"{model.name}: the plan does not run: {error}") from error
            return _outputs(model, folder / "outputs.json")

        return run


def find_version(program: Path) -> Version:
    """Return the version of TensorRT that `trtexec` belongs to.

    Raises:
        ExportError: there is no such program, or its TensorRT is too old.
    """
    where = "run this in NVIDIA's Triton image, or name the program by --trtexec"
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=_HELP_SECONDS)
    except OSError as error:
        raise ExportError(f"{program}: {error.strerror}; {where}") from error
    except subprocess.TimeoutExpired:
        raise ExportError(f"{program} --help did not end within {_HELP_SECONDS:g} s") from None
    found = _BANNER.search(done.stdout + done.stderr)
    if found is None:
        raise ExportError(f"{program} does not say its version of TensorRT, so it is not NVIDIA's trtexec; {where}")
    number = int(found[1])
    version = (number // 10000, number // 100 % 100, number % 100)
    if version < OLDEST:
        raise ExportError(f"{program} is of TensorRT {number}, but at least {'.'.join(map(str, OLDEST))} is needed")
    return version


def _outputs(model: Model, path: Path) -> list[Array]:
    """Read the outputs that trtexec wrote, in the table's order.

    Raises:
        ExportError: one is missing, or has values that are no numbers.
    """
    try:
        found = {str(each["name"]): each for each in json.loads(path.read_text("utf-8"))}
        return [_array(found[tensor.name], tensor) for tensor in model.outputs]
    except KeyError as error:
        raise ExportError(f"{model.name}: the plan has no output {error}") from error
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ExportError(f"{model.name}: the outputs of the plan cannot be read: {error}") from error


def _array(written: Mapping[str, object], tensor: Tensor) -> Array:
    """Return an output; its dimensions are written as `1x96x96x3`."""
    shape = [int(size) for size in re.findall(r"\d+", str(written["dimensions"]))]
    return np.array(written["values"], tensor.numpy).reshape(shape)
