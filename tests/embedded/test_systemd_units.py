"""The systemd units: systemd accepts them, and their commands have options that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from demo.child import STOP_SECONDS
from embedded.__main__ import _parser as embedded_parser
from embedded.errors import ModelDied, ModelHung, ServerDied
from gateway.__main__ import _parser as gateway_parser
from gateway.settings import Settings
from jobs.__main__ import _parser as jobs_parser
from jobs.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
PARSERS = {"embedded": embedded_parser, "gateway": gateway_parser, "jobs": jobs_parser}
PYTHON = "/opt/talking-avatar/.venv/bin/python"
# options that systemd 252 and 253 do not know, and ignore
NEWER = {"RestartSteps", "RestartMaxDelaySec"}
EXPECTED = {"Type", "User", "ExecStart", "Restart", "RestartSec", "OOMPolicy", "KillMode", "TimeoutStopSec", *NEWER}
HARDENING = {"NoNewPrivileges", "CapabilityBoundingSet", "ProtectSystem", "SystemCallFilter", "RestrictNamespaces"}


def _options(unit: Path) -> dict[str, list[str]]:
    text = unit.read_text().replace("\\\n", " ")
    pairs = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
    return {key: [value for name, value in pairs if name == key] for key, _ in pairs}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_command_has_the_options_of_its_program(unit: Path) -> None:
    (line,) = _options(unit)["ExecStart"]
    python, flag, package, *arguments = shlex.split(line)
    assert (python, flag) == (PYTHON, "-m")
    PARSERS[package]().parse_args(arguments)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_variable_of_a_unit_is_a_setting(unit: Path) -> None:
    known = {f"AVATAR_{name.upper()}" for name in {**Settings.model_fields, **WorkerSettings.model_fields}}
    assert {value.partition("=")[0] for value in _options(unit)["Environment"]} <= known


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_end_but_wrong_usage_leads_to_a_restart(unit: Path) -> None:
    options = _options(unit)
    assert set(options) >= EXPECTED | HARDENING
    assert options["Restart"] == ["on-failure"]
    assert options["StartLimitIntervalSec"] == ["0"]  # systemd gives up after five starts in ten seconds otherwise
    never = {int(status) for status in options["RestartPreventExitStatus"]}
    assert never == {2}
    assert not never & {error.exit_status for error in (ModelDied, ModelHung, ServerDied)}
    assert float(options["TimeoutStopSec"][0]) > STOP_SECONDS


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # a system without systemd; the other tests read the files themselves
        return
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PYTHON, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if unit_named(line)]
    assert [line for line in complaints if not any(f"'{option}'" in line for option in NEWER)] == []


def unit_named(line: str) -> bool:
    """Return whether a message of systemd names one of our units, and not one of this machine."""
    return any(unit.name in line for unit in UNITS)


def test_the_user_of_the_units_is_made_by_sysusers() -> None:
    (line,) = [line for line in (FOLDER / "talking-avatar.conf").read_text().splitlines() if line[:1] == "u"]
    assert {line.split()[1]} == {user for unit in UNITS for user in _options(unit)["User"]}
