import logging
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from avatar.settings import MIN_JOBS, OLD_NAMES, BadSetting, LiveSettings, warn_of_names, warn_of_old_names
from avatar.settings import load as load_settings
from gateway.settings import SETTINGS, Settings, load
from jobs.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    for old in OLD_NAMES:
        monkeypatch.delenv(old, raising=False)


def test_the_defaults_are_the_original_port_and_the_grpc_port_of_triton() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.triton_url) == ("0.0.0.0", 16000, "127.0.0.1:8001")  # noqa: S104
    assert settings.max_upload_bytes == 512 * 1024 * 1024
    assert settings.max_jobs >= MIN_JOBS
    assert settings.jobs_memory_mib >= 1024
    assert settings.work_dir.is_dir()


def test_every_setting_is_documented() -> None:
    assert [row.variable for row in SETTINGS] == [f"AVATAR_{name.upper()}" for name in Settings.model_fields]
    assert all(row.description.endswith(".") and row.default not in ("", "PydanticUndefined") for row in SETTINGS)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVATAR_PORT", "17000")
    monkeypatch.setenv("AVATAR_WORK_DIR", str(tmp_path))
    assert (load().port, load().work_dir) == (17000, tmp_path)


def test_arguments_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_PORT", "17000")
    assert load(port="18000", host=None).port == 18000


def test_the_log_level_may_be_upper_case() -> None:
    assert load(log_level="WARNING").log_level == "warning"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_TRITON_URL", "")
    assert load().triton_url == "127.0.0.1:8001"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "http"),
        ("triton_url", "triton"),
        ("triton_url", "http://triton:8001"),
        ("triton_timeout", "0"),
        ("triton_shared_memory", "on"),
        ("work_dir", "/no/such/folder"),
        ("max_upload_bytes", "0"),
        ("max_jobs", "0"),
        ("jobs_memory_mib", "0"),
        ("max_queued", "-1"),
        ("shutdown_grace", "-1"),
        ("drain_seconds", "601"),
        ("upload_timeout", "soon"),
        ("transfer_seconds", "0"),
        ("transfer_min_rate", "0.5"),
        ("header_timeout", "-1"),
        ("keep_alive_timeout", "0"),
        ("max_connections", "3"),
        ("max_jobs_per_client", "-1"),
        ("trusted_proxies", "nginx"),
        ("trusted_proxies", "10.0.0.0/33"),
        ("cors_origins", "example.com"),
        ("cors_origins", "https://example.com/a"),
        ("docs", "perhaps"),
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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "http", "expected a whole number from 0 to 65535 (got 'http')"),
        ("port", "65536", "expected a whole number from 0 to 65535 (got '65536')"),
        ("workers", "1.5", "expected a whole number of at least 0 (got '1.5')"),
        ("triton_timeout", "0", "expected a number above 0 and of at most 3600 (got '0')"),
        ("result_ttl", "soon", "expected a number above 0 (got 'soon')"),
        ("strict_form", "perhaps", "expected true or false (got 'perhaps')"),
        ("log_format", "xml", "expected text or json (got 'xml')"),
        ("log_level", "loud", "expected debug, info, warning or error (got 'loud')"),
        ("triton_url", "localhost", "host:port of Triton's gRPC expected, or several separated by commas"),
        ("otlp_endpoint", "collector", "expected a URL of http or https, such as http://collector:4318 (got"),
        ("store_public_endpoint", "x", "expected a URL without a path, such as https://files.example.com (got 'x')"),
        ("work_dir", "/no/such/folder", "the folder does not exist (got '/no/such/folder')"),
    ],
)
def test_a_bad_value_is_answered_in_words(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(f"AVATAR_{name.upper()}", value)
    with pytest.raises(BadSetting, match="^" + re.escape(f"AVATAR_{name.upper()}: {words}")):
        load()


def test_no_bad_value_is_answered_with_a_pattern_or_in_the_words_of_pydantic() -> None:
    for name in (*Settings.model_fields, *WorkerSettings.model_fields, *LiveSettings.model_fields):
        settings = next(kind for kind in (Settings, WorkerSettings, LiveSettings) if name in kind.model_fields)
        try:
            load_settings(settings, **{name: "-1:/\\"})
        except BadSetting as error:
            assert not re.search(r"String should|Input should|\^|valid (integer|number|boolean)", str(error)), error


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_TRUSTED_PROXIES", "10.1.2.3, 2001:db8::/32,")
    monkeypatch.setenv("AVATAR_CORS_ORIGINS", "https://example.com,http://localhost:3000")
    settings = load()
    assert [str(network) for network in settings.trusted_proxies] == ["10.1.2.3/32", "2001:db8::/32"]
    assert settings.cors_origins == ("https://example.com", "http://localhost:3000")
    assert load(cors_origins="none", trusted_proxies="None").cors_origins == ()


def test_all_bad_values_are_named_together() -> None:
    with pytest.raises(BadSetting, match=r"AVATAR_LOG_LEVEL: .*; AVATAR_PORT: "):
        load(port="-1", log_level="loud")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("AVATAR_TRITON", "triton_url", "triton:9001"),
        ("AVATAR_MAX_WAITING", "max_queued", 7),
    ],
)
def test_an_old_name_is_accepted_and_the_new_name_overrides_it(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, value: str | int
) -> None:
    monkeypatch.setenv(old, str(value))
    assert getattr(load(), new) == value
    other = "other:9001" if isinstance(value, str) else 8
    monkeypatch.setenv(f"AVATAR_{new.upper()}", str(other))
    assert getattr(load(), new) == other
    assert getattr(load(**{new: value}), new) == value


def test_an_old_name_of_a_live_setting_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_LIVE_MIB", "99")
    assert load_settings(LiveSettings).live_memory_mib == 99


def test_an_invalid_value_of_an_old_name_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_MAX_WAITING", "many")
    with pytest.raises(BadSetting, match=r"^AVATAR_MAX_QUEUED: .*'many'"):
        load()


def test_old_names_are_logged_once_per_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("test")
    monkeypatch.setenv("AVATAR_MAX_WAITING", "")
    warn_of_old_names(Settings, log)
    assert caplog.messages == []
    monkeypatch.setenv("AVATAR_MAX_WAITING", "7")
    monkeypatch.setenv("AVATAR_LIVE_MIB", "99")  # of another class
    warn_of_old_names(Settings, log)
    (message,) = caplog.messages
    assert message == "AVATAR_MAX_WAITING is the old name of AVATAR_MAX_QUEUED and will be removed in the next release"


def test_unknown_variables_are_warned_of_with_the_setting_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AVATAR_MAX_JOB", "AVATAR_COLOUR"):
        monkeypatch.setenv(name, "3")
    # of other programs, of tests, and of Kubernetes for a service named `avatar`
    for name in (
        "AVATAR_LIVE_SESSIONS",
        "AVATAR_WORKER_JOBS",
        "AVATAR_API_KEY",
        "AVATAR_TEST_CACHE",
        "AVATAR_MAX_WAITING",
    ):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("AVATAR_PORT_16000_TCP", "tcp://10.0.0.1:16000")
    warn_of_names(Settings, logging.getLogger("test"), WorkerSettings)
    unknown, similar, old = caplog.messages
    assert unknown == "AVATAR_COLOUR is not a setting, and is ignored"
    assert similar == "AVATAR_MAX_JOB is not a setting, and is ignored; did you mean AVATAR_MAX_JOBS?"
    assert old.startswith("AVATAR_MAX_WAITING is the old name")


def test_every_variable_of_the_repository_is_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = re.compile(r"\$\{(AVATAR_\w+)|environ.*\"(AVATAR_\w+)\"|_VARIABLE = \"(AVATAR_\w+)\"")
    for file in (
        *ROOT.glob("docker-compose.yml"),
        *(ROOT / "client").rglob("*.py"),
        *(ROOT / "embedded").rglob("*.py"),
    ):
        for names in read.findall(file.read_text()):
            monkeypatch.setenv("".join(names), "1")
    warn_of_names(Settings, logging.getLogger("test"), WorkerSettings)
    assert [message for message in caplog.messages if "not a setting" in message] == []


def test_every_old_name_has_a_setting() -> None:
    settings = {f"AVATAR_{name.upper()}" for kind in (Settings, LiveSettings) for name in kind.model_fields}
    assert set(OLD_NAMES.values()) <= settings
    assert not OLD_NAMES.keys() & settings


def test_the_token_of_triton_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_TRITON_TOKEN", "a-secret-token")
    settings = load()
    assert settings.triton_token.get_secret_value() == "a-secret-token"
    assert "a-secret-token" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
