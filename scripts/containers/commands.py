"""Run commands, and say what is being done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_BEGIN = time.monotonic()


class Failed(Exception):
    """A trial or a step did not do what it should; the message says what was expected."""


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - _BEGIN:6.1f} s] {line}", flush=True)


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 900.0,
    stdin: bytes | None = None,
) -> str:
    """Run a command and return its output.

    Raises:
        Failed: its exit status is not 0; the message has the end of its output.
    """
    done = attempt(*command, cwd=cwd, env=env, timeout=timeout, stdin=stdin)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise Failed(f"{' '.join(map(str, command))[:300]} ended with {done.returncode}:\n{tail}")
    return done.stdout


def attempt(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 900.0,
    stdin: bytes | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail; its stdout and stderr are joined."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | dict(env or {}),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(errors="replace"))


def require(condition: bool, expected: str) -> None:
    """Raise Failed with what was expected if the condition does not hold."""
    if not condition:
        raise Failed(f"expected: {expected}")


def require_root_on_debian() -> None:
    """Raise Failed where the engine cannot be run: it needs root, and packages of Debian."""
    if os.geteuid() != 0:
        raise Failed("root is needed, for a container engine of its own: run it in a virtual machine or as root")
    if sys.platform != "linux" or not Path("/usr/bin/apt-get").exists():
        raise Failed("a Debian 12 or newer is needed: the engine is unpacked from Debian's packages")
