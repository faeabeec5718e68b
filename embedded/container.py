"""`python3 -m embedded.container`: start Triton in its container, with the flags that its version knows.

It prepares the start and then becomes `embedded.guard`, which runs the server and ends when the server or the process
of a model does not serve any more; the restart policy of the container then starts both again. Only the standard
library is imported. Variables of the environment:

    AVATAR_TRITON_TOKEN            key of the protocols that are not for callers; without it, a random one
    AVATAR_OTLP_ENDPOINT           collector of OpenTelemetry, for Triton's own traces; OTEL_SERVICE_NAME names them
    AVATAR_TRITON_POLL             seconds between looks for new versions in the repository; default: none
    AVATAR_TRITON_SHARED_MEMORY    `auto` lets clients that have the key register shared memory; default: off
    NVIDIA_TRITON_SERVER_VERSION   set by NVIDIA's image: the year and month of its release
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import access, command_line, private_memory
from .watchdog import REGIONS, SHM

REPOSITORY = "/models/repository"
HTTP = "127.0.0.1:8000"  # for the guard in this container; not reachable from outside
EXIT_SECONDS = 30  # that the server waits for requests in flight when it is stopped

# The oldest release without published vulnerabilities that concern this design: docs/security.md.
FLOOR = (26, 6)
# Releases that introduced a flag; an older server does not start with it.
RESPONSE_POOL, INFER_THREADS, CLIENT_SHARED_MEMORY = (25, 3), (25, 4), (26, 4)
# Responses that a stream may have unread, the last barrier against callers who do not read: `avatar` and `live` end
# their streams long before. A stream that reaches it blocks the threads that send for its model.
MAX_UNREAD = 4096

# With a GPU. Tensors between the models of an ensemble come from the pinned pool, inputs of networks from that of each
# GPU: 16 images of 1080p are 100 MB. What does not fit is allocated and freed for each call, which stops the GPU.
PINNED_POOL_BYTES, GPU_POOL_BYTES = 2 << 30, 1 << 30
THREADS_WITH_GPU = 8  # that receive calls; the default of 2 is less than what a fast network serves
STATES_WITH_GPU = 64  # of calls that are kept for the next ones

LOCK_PREFIX, LOCK_SUFFIX = "avatar-triton-", ".lock"  # of a file in /dev/shm, around the name of its owner


def version_of(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return year and month of Triton's release, (0, 0) where the image does not say it."""
    found = re.match(r"(\d+)\.(\d+)", environ.get("NVIDIA_TRITON_SERVER_VERSION", ""))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def count_gpus(devices: Path = Path("/dev")) -> int:
    """Return the number of NVIDIA's GPUs in this container."""
    return sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in devices.glob("nvidia*"))


def arguments(environ: Mapping[str, str], token: str, prefix: str, gpus: int = 0) -> list[str]:
    """Return the server's command line; `prefix` begins the names of its regions in /dev/shm."""
    version = version_of(environ)
    host, _, port = HTTP.partition(":")
    argv = [
        "tritonserver",
        f"--model-repository={REPOSITORY}",
        "--disable-auto-complete-config",  # the configs are complete; it would start every Python model twice
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--http-address={host}",
        f"--http-port={port}",
        "--grpc-address=0.0.0.0",
        *command_line.KEEPALIVE,
        "--metrics-address=0.0.0.0",
        *access.restrictions(token, http=True),
        # other ways to the same endpoints
        "--allow-vertex-ai=false",
        "--allow-sagemaker=false",
        *command_line.tracing(environ),
        *_polling(environ),
    ]
    if version >= RESPONSE_POOL:
        argv.append(f"--grpc-max-response-pool-size={MAX_UNREAD}")
    if version >= CLIENT_SHARED_MEMORY and environ.get("AVATAR_TRITON_SHARED_MEMORY") == "auto":
        argv.append("--allow-client-shm=true")
    if gpus:
        argv.append(f"--pinned-memory-pool-byte-size={PINNED_POOL_BYTES}")
        argv += [f"--cuda-memory-pool-byte-size={gpu}:{GPU_POOL_BYTES}" for gpu in range(gpus)]
        argv.append(f"--grpc-infer-allocation-pool-size={STATES_WITH_GPU}")
        if version >= INFER_THREADS:
            argv.append(f"--grpc-infer-thread-count={THREADS_WITH_GPU}")
    return argv


def _polling(environ: Mapping[str, str]) -> list[str]:
    seconds = environ.get("AVATAR_TRITON_POLL", "")
    if not seconds:
        return []
    if not re.fullmatch(r"[1-9]\d{0,4}", seconds):
        raise ValueError(f"AVATAR_TRITON_POLL is a whole number of seconds, at least 1, not {seconds!r}")
    return command_line.polling(seconds)


def claim_prefix(folder: Path = SHM) -> str:
    """Remove the regions of servers that were killed, and return a prefix that belongs to this process.

    A lock file marks the owner of each prefix: its lock ends with the process, in whichever container it runs, so the
    regions of a server that still runs are kept. This process keeps the lock until it ends, also through `exec`.
    """
    for path in folder.glob(f"{LOCK_PREFIX}*{LOCK_SUFFIX}"):
        with suppress(OSError):  # another user's file
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name = path.name.removeprefix(LOCK_PREFIX).removesuffix(LOCK_SUFFIX)
                for region in folder.glob(f"{REGIONS}{name}*"):
                    region.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            finally:
                os.close(file)
    name = secrets.token_hex(8)
    file = os.open(folder / f"{LOCK_PREFIX}{name}{LOCK_SUFFIX}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.set_inheritable(file, True)
    return f"{REGIONS}{name}"


def main() -> None:
    """Start the guard in the place of this process."""
    environ = dict(os.environ)
    version = version_of(environ)
    if version < FLOOR:
        release = f"{version[0]}.{version[1]:02}"
        warning = f"Triton {release} is older than {FLOOR[0]}.{FLOOR[1]:02}: it has published vulnerabilities"
        print(f"container: {warning}", file=sys.stderr, flush=True)
    try:
        private_memory.keep_private()  # it matters where the container has the host's /dev/shm
    except OSError as error:
        print(f"container: other users can read the frames in {SHM}: {error}", file=sys.stderr, flush=True)
    try:
        token = access.check_token(environ.pop(access.TOKEN_VARIABLE, "") or access.make_token())
        argv = arguments(environ, token, claim_prefix(), count_gpus())
    except ValueError as error:
        sys.exit(f"container: {error}")
    guard = [sys.executable, "-m", "embedded.guard", "--http", HTTP, "--"]
    os.execve(sys.executable, guard + argv, environ)  # noqa: S606


if __name__ == "__main__":
    main()
