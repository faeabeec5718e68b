"""The server's command line and environment. Pure functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lipsync.triton.cpu import THREADS_VARIABLE

from .installation import Installation
from .ports import HOST, Ports

EXIT_SECONDS = 10  # that the server waits for requests in flight when it is stopped


def arguments(
    installation: Installation, repository: Path, backends: Path, ports: Ports, shm_prefix: str, poll: int | None = None
) -> list[str]:
    """Return the server's command line; with `poll` it checks the repository for changes every `poll` seconds."""
    control = ["poll", f"--repository-poll-secs={poll}"] if poll else ["none"]
    return [
        str(installation.server),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--model-control-mode={control[0]}",
        *control[1:],
        # the configs are complete; auto-completion would start every Python model twice
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        f"--http-address={HOST}",
        f"--http-port={ports.http}",
        f"--grpc-address={HOST}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.metrics}",
    ]


def environment(installation: Installation, threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return the server's environment: `base` with changes.

    The stub embeds Python: it finds the shared library of the running Python through LD_LIBRARY_PATH, and the running
    virtual environment through the first `python3` on PATH.
    """
    variables = {name: value for name, value in base.items() if name != "PYTHONHOME"}
    libraries = [str(installation.libpython), str(installation.libraries), base.get("LD_LIBRARY_PATH", "")]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)])
    variables["PYTHONUNBUFFERED"] = "1"  # what a model prints appears in the log at once
    variables[THREADS_VARIABLE] = str(threads)
    variables["ORT_DISABLE_TELEMETRY"] = "1"  # without it, onnxruntime reports its use over the network
    return variables
