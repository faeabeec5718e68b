"""Find out which GPU this machine has: a plan runs on the kind of GPU that it was built on, and on no other."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from ..errors import ExportError

QUERY = ("--query-gpu=name,compute_cap", "--format=csv,noheader")
_QUERY_SECONDS = 60.0  # the first call after a start of the machine initializes the driver


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: NVIDIA's name of it.
        compute_capability: such as 9.0.
    """

    name: str
    compute_capability: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def identify(nvidia_smi: str = "nvidia-smi") -> Gpu:
    """Return the kind of this machine's GPUs.

    Raises:
        ExportError: there is no GPU, its driver does not work, or there are GPUs of several kinds.
    """
    remedy = "plans are built where they run: start this with a GPU (docker compose run --rm plans)"
    try:
        done = subprocess.run([nvidia_smi, *QUERY], capture_output=True, text=True, timeout=_QUERY_SECONDS)
    except FileNotFoundError:
        raise ExportError(f"no GPU: {nvidia_smi} is missing; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"no GPU: {nvidia_smi} did not answer within {_QUERY_SECONDS:g} s; restart the driver"
        ) from None
    if done.returncode:
        reason = " ".join((done.stdout + done.stderr).split()) or f"status {done.returncode}"
        raise ExportError(f"no GPU: {nvidia_smi} says: {reason}; {remedy}")
    found = {Gpu(name, capability) for name, capability in map(_fields, done.stdout.strip().splitlines())}
    if not found:
        raise ExportError(f"no GPU: {nvidia_smi} lists none; {remedy}")
    if len(found) > 1:
        kinds = ", ".join(sorted(map(str, found)))
        raise ExportError(
            f"GPUs of several kinds: {kinds}; a plan fits one kind, so give this container only one of them"
        )
    return found.pop()


def _fields(line: str) -> tuple[str, str]:
    name, _, capability = line.rpartition(",")
    return name.strip(), capability.strip()
