import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from avatar.settings import BadSetting, _cores
from gateway.settings import SETTINGS, Settings, load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)


def test_the_defaults_are_the_originals_port_and_tritons_grpc_port() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.triton) == ("0.0.0.0", 16000, "127.0.0.1:8001")  # noqa: S104
    assert settings.max_upload_bytes == 512 * 1024 * 1024
    assert settings.max_jobs >= 2
    assert settings.work_dir.is_dir()


def test_every_setting_is_documented() -> None:
    assert [row.variable for row in SETTINGS] == [f"AVATAR_{name.upper()}" for name in Settings.model_fields]
    assert all(row.about.endswith(".") and row.default not in ("", "PydanticUndefined") for row in SETTINGS)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVATAR_PORT", "17000")
    monkeypatch.setenv("AVATAR_WORK_DIR", str(tmp_path))
    assert (load().port, load().work_dir) == (17000, tmp_path)


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_PORT", "17000")
    assert load(port="18000", host=None).port == 18000


def test_the_log_level_may_be_shouted() -> None:
    assert load(log_level="WARNING").log_level == "warning"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_TRITON", "")
    assert load().triton == "127.0.0.1:8001"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "http"),
        ("triton", "triton"),
        ("triton", "http://triton:8001"),
        ("triton_timeout", "0"),
        ("triton_shared_memory", "on"),
        ("work_dir", "/no/such/folder"),
        ("max_upload_bytes", "0"),
        ("max_jobs", "0"),
        ("max_waiting", "-1"),
        ("shutdown_grace", "-1"),
        ("upload_timeout", "soon"),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_a_bad_value_is_named_by_its_variable_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AVATAR_{name.upper()}", value)
    with pytest.raises(BadSetting, match=f"^AVATAR_{name.upper()}: .*{value}") as raised:
        load()
    assert "\n" not in str(raised.value)


def test_all_bad_values_are_named_together() -> None:
    with pytest.raises(BadSetting, match=r"AVATAR_PORT: .*; AVATAR_LOG_LEVEL: "):
        load(port="-1", log_level="loud")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load().port = 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", None), ("", None)]
)
def test_jobs_at_once_follow_a_containers_quota(tmp_path: Path, quota: str, cores: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    machine = len(os.sched_getaffinity(0))
    assert _cores(file) == (cores or machine)
    assert _cores(tmp_path / "missing") == machine
