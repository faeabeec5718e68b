"""How the server is called: its arguments and its environment. Pure functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lipsync.triton.cpu import THREADS_VARIABLE

from .installation import Installation
from .ports import HOST, Ports

EXIT_SECONDS = 10  # for requests in flight when the server is stopped


def arguments(
    parts: Installation, repository: Path, backends: Path, ports: Ports, shm_prefix: str, poll: int | None = None
) -> list[str]:
    """The server's command line; with `poll` the repository is looked at again every so many seconds."""
    control = ["poll", f"--repository-poll-secs={poll}"] if poll else ["none"]
    return [
        str(parts.server),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--model-control-mode={control[0]}",
        *control[1:],
        # the configs are complete, and completing would start every Python model twice
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


def environment(parts: Installation, threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """The server's environment, grown from `base`.

    The stub is an embedded Python: it finds the shared library of the running Python by
    LD_LIBRARY_PATH, and the running virtual environment by the first `python3` on PATH.
    """
    grown = {name: value for name, value in base.items() if name != "PYTHONHOME"}
    libraries = [str(parts.libpython), str(parts.libraries), base.get("LD_LIBRARY_PATH", "")]
    grown["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    grown["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)])
    grown["PYTHONUNBUFFERED"] = "1"  # what a model prints stands in the log at once
    grown[THREADS_VARIABLE] = str(threads)
    grown["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime would report over the network how it is used
    return grown
