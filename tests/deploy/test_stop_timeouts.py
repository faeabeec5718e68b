"""How long each process takes to stop, and how long Compose, systemd, Kubernetes and the documentation give it."""

from __future__ import annotations

import re

import pytest

from embedded import command_line, container
from gateway.server import RESPONSE_SECONDS
from gateway.settings import Settings
from jobs.attempt import STOPPED_SETTLE_SECONDS
from jobs.settings import WorkerSettings
from tests.support.chart import pod
from tests.support.dockerfiles import ROOT, compose

PROCESSES = ("gateway", "worker", "Triton")
PAGE = ROOT / "docs" / "operations" / "several-tritons.md"
MARGIN = 10  # seconds: connections are closed, files removed, the interpreter ends


def in_compose(name: str) -> int:
    found = {
        int(service["stop_grace_period"].removesuffix("s"))
        for each, service in compose()["services"].items()
        if each in (name.lower(), f"{name.lower()}-cpu")
    }
    (seconds,) = found
    return seconds


def in_systemd(name: str) -> int:
    unit = (ROOT / "deploy" / "systemd" / f"talking-avatar-{name.lower()}.service").read_text()
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    return int(seconds)


def in_kubernetes(name: str) -> tuple[int, int]:
    """Return the pause before SIGTERM, and the seconds after it."""
    found = pod("cpu", name.lower())
    return found.pause, found.stop_seconds


def needed(name: str, *, embedded: bool = False) -> float:
    """Return the seconds from SIGTERM after which the process has ended in any case."""
    if name == "Triton":
        return (command_line.EXIT_SECONDS if embedded else container.EXIT_SECONDS) + MARGIN
    fields = Settings.model_fields if name == "gateway" else WorkerSettings.model_fields
    drain = fields["drain_seconds"].default if name == "gateway" else 0
    return float(drain + fields["shutdown_grace"].default + max(RESPONSE_SECONDS, STOPPED_SETTLE_SECONDS) + MARGIN)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_supervisor_waits_longer_than_the_process_takes(name: str) -> None:
    assert in_compose(name) >= needed(name)
    assert in_systemd(name) >= needed(name, embedded=True)
    assert in_kubernetes(name)[1] >= needed(name)


def test_compose_and_systemd_leave_ten_seconds_for_a_gateway_that_drains() -> None:
    assert min(in_compose("gateway"), in_systemd("gateway")) >= needed("gateway") + 10


@pytest.mark.parametrize("name", PROCESSES)
def test_the_table_of_the_documentation_has_these_numbers(name: str) -> None:
    (row,) = re.findall(rf"^\| {name} \|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    pause, seconds = in_kubernetes(name)
    expected = [in_compose(name), in_systemd(name), f"{pause} + {seconds}" if pause else seconds]
    assert [cell.strip() for cell in row[1:]] == [str(each) for each in expected]
