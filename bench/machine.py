"""Describe the machine that a benchmark runs on."""

from __future__ import annotations

import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lipsync.triton.cpu import usable_cores


@dataclass(frozen=True)
class Machine:
    """Processor, usable cores, GPU (empty if none is used), and the time of the run."""

    processor: str
    cores: int
    gpu: str
    when: str

    @classmethod
    def current(cls, gpu: str = "") -> Machine:
        """Return the description of this machine."""
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return cls(processor_name(), usable_cores(), gpu, when)

    @property
    def text(self) -> str:
        """The description in one line."""
        return f"{self.cores} cores of {self.processor}{', ' + self.gpu if self.gpu else ''}; {self.when}"


def processor_name() -> str:
    """Return the name of the processor, or its architecture if Linux does not name it."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpu_name() -> str:
    """Return the name of the GPU, or `a GPU` if nvidia-smi does not tell it."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "a GPU"
