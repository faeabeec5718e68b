"""The machine of a run: the card and its driver, processor, and the versions of what is measured."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import util
from importlib.metadata import PackageNotFoundError, version

import onnxruntime
import torch

from avatar.media.ffmpeg import executable
from lipsync.triton.cpu import usable_cores

from ..machine import processor_name
from .errors import LeftOut
from .goals import TINY
from .rows import Row
from .settings import QUICK, Settings

_QUERY = "name,driver_version,memory.total,power.limit,clocks.max.sm,pcie.link.gen.max,pcie.link.width.max"
_PACKAGES = ("numpy", "opencv-python-headless", "onnx", "onnxruntime", "tritonclient", "nvidia-pytriton", "tensorrt")


def describe(settings: Settings) -> Iterator[Row]:
    """Yield the parts of the description.

    Raises:
        LeftOut: a GPU is asked for, and PyTorch finds none.
    """
    yield _row("processor", f"{usable_cores()} cores of {processor_name()}")
    yield _row("Python", platform.python_version())
    yield _row("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {_cudnn()}")
    yield _row("onnxruntime's providers", ", ".join(onnxruntime.get_available_providers()))
    for package in _PACKAGES:
        yield _row(package, _version(package))
    yield _row("trtexec", shutil.which("trtexec") or "not here")
    yield _row("ffmpeg", _first_line(executable(), "-version"))
    yield _row("ffmpeg's NVENC", "yes" if "h264_nvenc" in _output(executable(), "-hide_banner", "-encoders") else "no")
    if util.find_spec("triton"):
        yield _row("Triton, the compiler", _version("triton"))
    if settings.scale is QUICK:
        yield _row(TINY, "tiny (--quick): the figures say nothing")
    if settings.url:
        yield _row("server", settings.url)
    if shutil.which("nvidia-smi"):
        yield _row("card", _first_line("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"))
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            raise LeftOut("PyTorch finds no GPU here; without one, use --device cpu")
        yield _row("GPU", torch.cuda.get_device_name(0))


def _row(name: str, value: str) -> Row:
    return {"table": "machine", "name": name, "value": value}


def _cudnn() -> object:
    return torch.backends.cudnn.version()  # type: ignore[no-untyped-call]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not here"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def _first_line(*command: str) -> str:
    return next(iter(_output(*command).splitlines()), "")
