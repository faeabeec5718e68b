"""A Docker engine of its own: Debian's packages, unpacked beside the system, with its data below the work folder.

The machine's own engine, if it has one, is not touched: the base images are made under their official names, and must
not hide the real ones. Nothing of the machine's network is changed (`--iptables=false`): published ports pass through
docker-proxy, and builds use the network of the machine.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from .commands import Failed, run, say

# From the next Debian, because Debian 12 has no Compose 2. Its runc wants a newer C library; that of Debian 12 works.
_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd")
_SYSTEM_PACKAGES = ("runc", "tini", "debootstrap", "iptables", "util-linux")
_NEXT_RELEASE = "trixie"
_BRIDGE = "172.30.99.1/24"
_START_SECONDS = 60.0


class Engine:
    """The daemon, its folder, and the commands that reach it."""

    def __init__(self, work: Path) -> None:
        """Plan an engine below `work`."""
        self.folder = work / "docker"
        self._root = self.folder / "root"
        self._socket = self.folder / "docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        folders = [self._root / "usr" / "bin", self._root / "usr" / "sbin"]
        os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
        os.environ["DOCKER_HOST"] = f"unix://{self._socket}"
        os.environ["DOCKER_CONFIG"] = str(self.folder / "config")

    def install(self) -> None:
        """Download and unpack the engine; a second call has no effect."""
        if (self._root / "usr" / "sbin" / "dockerd").exists():
            return
        say("installing the engine")
        run("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *_SYSTEM_PACKAGES)
        for name in ("parts", "lists/partial", "cache/archives/partial", "root", "config/cli-plugins"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "parts" / "next.sources").write_text(_sources_of_next_release())
        apt = ["apt-get", "-qq", "-o", "Dir::Etc::SourceList=/dev/null", "-o", "APT::Sandbox::User=root"]
        for option, name in (("Etc::SourceParts", "parts"), ("State::Lists", "lists"), ("Cache", "cache")):
            apt += ["-o", f"Dir::{option}={self.folder / name}"]
        run(*apt, "update")
        run(*apt, "download", *_PACKAGES, cwd=self.folder)
        for package in self.folder.glob("*.deb"):
            run("dpkg", "-x", package, self._root)
        for plugin in (self._root / "usr/libexec/docker/cli-plugins").iterdir():
            link = self.folder / "config" / "cli-plugins" / plugin.name
            link.unlink(missing_ok=True)
            link.symlink_to(plugin)

    def start(self) -> str:
        """Start the daemon and return the versions."""
        config = self.folder / "daemon.json"
        config.write_text("{}")
        argv: list[str | Path] = ["dockerd", "--config-file", config, "--data-root", self.folder / "data"]
        argv += ["--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid"]
        argv += ["--host", f"unix://{self._socket}", "--iptables=false", "--ip6tables=false"]
        argv += ["--bip", _BRIDGE, "--init-path", "/usr/bin/tini-static"]
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._daemon.poll() is not None:
                raise Failed(f"dockerd ended, see {self.folder / 'dockerd.log'}")
            if subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
                compose = run("docker", "compose", "version", "--short").strip()
                server = run("docker", "version", "--format", "{{.Server.Version}}").strip()
                return f"Docker {server}, Compose {compose}"
            time.sleep(0.5)
        raise Failed(f"dockerd does not answer, see {self.folder / 'dockerd.log'}")

    def stop(self) -> None:
        """Stop the daemon and remove its bridge."""
        if self._daemon and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(60)
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True)


def _sources_of_next_release() -> str:
    """Return the machine's own package source, for the next release."""
    text = Path("/etc/apt/sources.list.d/debian.sources").read_text()
    return re.sub(r"^Suites:.*", f"Suites: {_NEXT_RELEASE}", text.split("\n\n")[0], flags=re.M) + "\n"
