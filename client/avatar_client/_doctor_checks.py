"""What `avatar doctor` finds out, and what it finds out about this machine."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final, Literal

Level = Literal["ok", "warning", "problem"]
OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"
PROGRAM_SECONDS = 10.0  # for a program to answer
PACKAGES = ("tritonclient", "grpcio", "numpy")
ENCODERS = ("libx264", "h264_nvenc", "libvpx-vp9", "aac", "libopus")  # that the service uses, if it has them
_GPU_FIELDS = ("name", "memory.total", "driver_version")


@dataclass(frozen=True)
class Check:
    """What one check has found.

    Attributes:
        name: what was checked.
        level: `ok`, `warning` or `problem`.
        text: what was found, for a person.
        remedy: what to do; empty where nothing has to be done.
        details: the same for programs.
    """

    name: str
    level: Level
    text: str
    remedy: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def check_client() -> Check:
    """Check what the client runs on."""
    from . import __version__

    packages = {name: _version(name) for name in PACKAGES}
    python = platform.python_version()
    details = {"version": __version__, "python": python, "platform": platform.platform(), "packages": packages}
    used = ", ".join(f"{name} {number}" for name, number in packages.items())
    return Check("client", OK, f"avatar {__version__} on Python {python} with {used}", details=details)


def check_preview() -> Check:
    """Check whether `avatar preview` can decode and draw."""
    installed = find_spec("cv2") is not None
    details = {"installed": installed}
    if installed:
        return Check("preview", OK, "avatar preview can be used", details=details)
    text = "avatar preview cannot be used: the package opencv-python-headless is not installed"
    remedy = "pip install 'talking-avatar-client[preview]', or pipx inject talking-avatar-client opencv-python-headless"
    return Check("preview", OK, text, remedy, details)


def check_ffmpeg() -> Check:
    """Check ffmpeg on the PATH. The service brings its own, so that none is no problem."""
    program = shutil.which("ffmpeg")
    if program is None:
        text = "none on the PATH; only a pipe such as `avatar render ... -o - | ffplay -` needs it"
        return Check("ffmpeg", OK, text, details={"path": None, "version": None, "encoders": []})
    first, listed = _output(program, "-version"), _output(program, "-hide_banner", "-encoders")
    found = re.match(r"ffmpeg version (\S+)", first)
    encoders = [name for name in ENCODERS if re.search(rf"^ \S+ {re.escape(name)} ", listed, re.M)]
    details = {"path": program, "version": found and found[1], "encoders": encoders}
    if not found:
        return Check("ffmpeg", WARNING, f"{program} does not work", "install ffmpeg again, or remove it", details)
    missing = [name for name in ENCODERS if name not in encoders]
    text = f"{found[1]} encodes with {', '.join(encoders) or 'none of the usual encoders'}"
    return Check("ffmpeg", OK, text + (f"; without {', '.join(missing)}" if missing else ""), details=details)


def check_gpu() -> Check:
    """Check for NVIDIA GPUs in this machine."""
    gpus = local_gpus()
    if gpus is None:
        text = "no NVIDIA GPU in this machine (nvidia-smi is not there)"
        return Check("gpu", OK, text, details={"gpus": []})
    if not gpus:
        text = "nvidia-smi finds no GPU"
        return Check("gpu", WARNING, text, "check the driver: nvidia-smi says more", {"gpus": []})
    text = "; ".join(f"{each['name']}, {each['memory.total']}, driver {each['driver_version']}" for each in gpus)
    return Check("gpu", OK, text, details={"gpus": gpus})


def local_gpus() -> list[dict[str, str]] | None:
    """Return the GPUs that nvidia-smi lists; None without the program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    lines = _output(program, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader").splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return [dict(zip(_GPU_FIELDS, row, strict=True)) for row in rows if len(row) == len(_GPU_FIELDS)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def _output(*command: str) -> str:
    """Return what a program prints; nothing if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=PROGRAM_SECONDS, text=True, errors="replace", check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
