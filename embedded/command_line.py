"""The server's command line and environment. Pure functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lipsync.triton.cpu import THREADS_VARIABLE

from . import access
from .installation import Installation
from .model_watch import POLLING
from .ports import HOST, Ports

# A caller whose machine vanishes, or whose process is stopped, is noticed after 40 s: its streams end, and what it has
# not read is dropped. The default is hours.
KEEPALIVE = ("--grpc-keepalive-time=30000", "--grpc-keepalive-timeout=10000")
EXIT_SECONDS = 10  # that the server waits for requests in flight when it is stopped
OTLP_VARIABLE = "AVATAR_OTLP_ENDPOINT"  # the collector of traces, as in `avatar.settings`
SERVICE = "talking-avatar-triton"  # the name of the server in traces, where OTEL_SERVICE_NAME gives none


def arguments(
    installation: Installation,
    repository: Path,
    backends: Path,
    ports: Ports,
    shm_prefix: str,
    token: str,
    poll: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the server's command line.

    Args:
        installation: the server's files.
        repository, backends: its models, and what runs them.
        ports: of 127.0.0.1. HTTP is off unless it has a port: version 2.51 can be crashed by one request, before any
            token is checked.
        shm_prefix: beginning of the names of its shared memory.
        token: what its endpoints for operators require.
        poll: seconds between checks of the repository for changes; by default there are none.
        environ: the environment, for `tracing`.
    """
    http = ["--allow-http=false"]
    if ports.http is not None:
        http = [f"--http-address={HOST}", f"--http-port={ports.http}"]
    return [
        str(installation.server),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        *(polling(poll) if poll else ["--model-control-mode=none"]),
        # the configs are complete; auto-completion would start every Python model twice
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        *http,
        f"--grpc-address={HOST}",
        f"--grpc-port={ports.grpc}",
        *KEEPALIVE,
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.metrics}",
        # from 2.68 (26.04) on, clients need --allow-client-shm=true for shared memory, which this version does not know
        *access.restrictions(token, http=ports.http is not None),
        # other ways to the same endpoints, which in this version check no token
        "--allow-vertex-ai=false",
        "--allow-sagemaker=false",
        *tracing(environ or {}),
    ]


def polling(seconds: int | str) -> list[str]:
    """Return the flags with which Triton looks for new versions in its repository; the guards know it by the first."""
    return [POLLING, f"--repository-poll-secs={seconds}"]


def tracing(environ: Mapping[str, str]) -> list[str]:
    """Return the flags that switch on Triton's own traces, where the environment names a collector.

    Only calls that carry a `traceparent` are traced. The models `avatar` and `live` see it as a parameter.
    """
    endpoint = environ.get(OTLP_VARIABLE)
    if not endpoint:
        return []
    return [
        "--grpc-header-forward-pattern=^traceparent$",
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=0",
        "--trace-config=count=-1",
        f"--trace-config=opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        f"--trace-config=opentelemetry,resource=service.name={environ.get('OTEL_SERVICE_NAME') or SERVICE}",
    ]


def environment(installation: Installation, threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """Return the server's environment: `base` with changes.

    The stub embeds Python: it finds the shared library of the running Python through LD_LIBRARY_PATH, and the running
    virtual environment through the first `python3` on PATH. Models get no token.
    """
    left_out = {"PYTHONHOME", access.TOKEN_VARIABLE, "AIP_MODE"}  # the last would open Vertex AI's port, and no other
    variables = {name: value for name, value in base.items() if name not in left_out}
    libraries = [str(installation.libpython), str(installation.libraries), base.get("LD_LIBRARY_PATH", "")]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)])
    variables["PYTHONUNBUFFERED"] = "1"  # what a model prints appears in the log at once
    variables[THREADS_VARIABLE] = str(threads)
    variables["ORT_DISABLE_TELEMETRY"] = "1"  # without it, onnxruntime reports its use over the network
    return variables
