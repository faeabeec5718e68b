"""API keys: the file of their hashes, and the command that changes it."""

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from jobs.keys import BadKeys, KeyFile, KeyLimits, hash_key, new_key
from jobs.records import JobClass
from tests.support.api_keys import add_key, keys_command

DEFAULTS = KeyLimits(10, 20, 30, 40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_key_that_was_added_is_found_and_no_other(path: Path) -> None:
    key = add_key(path, "acme")
    found = KeyFile(path).find(key)
    assert found is not None
    assert found.name == "acme"
    assert KeyFile(path).find(key + "x") is None
    assert KeyFile(path).find(new_key()) is None
    assert KeyFile(path).find("") is None


def test_the_file_has_the_hash_and_not_the_key_and_only_its_owner_may_read_it(path: Path) -> None:
    key = add_key(path, "acme")
    assert key not in path.read_text()
    assert hash_key(key) in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) >= 43 + len("avk_")  # 256 bits
    assert [file.name for file in path.parent.iterdir()] == ["keys"]


def test_a_changed_file_keeps_its_mode(path: Path) -> None:
    add_key(path, "acme")
    path.chmod(0o640)
    add_key(path, "other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_key_may_have_limits_and_priorities_of_its_own(path: Path) -> None:
    limited = add_key(path, "small", "--queued", "1", "--stored-mib", "2", "--priority", "batch")
    plain = add_key(path, "plain")
    keys = KeyFile(path)
    small = keys.find(limited)
    assert small is not None
    assert small.limits(DEFAULTS) == KeyLimits(1, 20, 30, 2 * 1024 * 1024)
    assert small.priorities == {JobClass.BATCH}
    other = keys.find(plain)
    assert other is not None
    assert other.limits(DEFAULTS) == DEFAULTS
    assert other.priorities is None


def test_a_key_counts_as_soon_as_it_is_added_and_until_it_is_revoked(path: Path) -> None:
    first = add_key(path, "acme")
    keys = KeyFile(path)
    second = add_key(path, "other")
    assert keys.find(second)
    assert keys_command("revoke", "acme", file=path)[0] == 0
    assert keys.find(first) is None
    assert keys.find(second)


def test_one_of_two_keys_of_a_name_is_revoked_by_its_id(path: Path) -> None:
    old, new = add_key(path, "acme"), add_key(path, "acme", "--another")
    assert keys_command("revoke", "acme", "--id", hash_key(old)[:8], file=path)[0] == 0
    keys = KeyFile(path)
    assert keys.find(old) is None
    assert keys.find(new)


def test_a_broken_file_keeps_the_last_keys_and_is_logged_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = add_key(path, "acme")
    keys = KeyFile(path)
    good = path.read_text()
    with caplog.at_level(logging.ERROR, "jobs.keys"):
        path.write_text(good + '{"name": "x"}\n')
        assert keys.find(key)
        assert keys.find(key)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "line 2" in (keys.check() or "")
    path.write_text(good)
    assert keys.check() is None


def test_a_file_that_is_gone_keeps_the_last_keys_until_it_is_back(path: Path) -> None:
    key = add_key(path, "acme")
    keys = KeyFile(path)
    away = path.rename(path.with_name("away"))
    assert keys.find(key)
    assert "No such file" in (keys.check() or "")
    away.rename(path)
    assert keys.check() is None
    path.unlink()
    path.write_text("# no keys\n\n")
    assert keys.find(key) is None


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"name": "a/b", "sha256": "%s"}' % ("0" * 64),
        '{"name": "a", "sha256": "0"}',
        '{"name": "a", "sha256": "%s", "limit": 1}' % ("0" * 64),
        '{"name": "a", "sha256": "%s", "queued": 0}' % ("0" * 64),
        '{"name": "a", "sha256": "%s", "priorities": ["fast"]}' % ("0" * 64),
    ],
)
def test_a_line_that_is_no_key_names_the_file_and_the_line(path: Path, line: str) -> None:
    path.write_text(f"# keys\n{line}\n")
    with pytest.raises(BadKeys, match=rf"line 2 of {path}"):
        KeyFile(path)


def test_a_missing_file_says_how_to_make_it(path: Path) -> None:
    with pytest.raises(BadKeys, match="python -m jobs keys add NAME"):
        KeyFile(path)


def test_the_list_shows_names_ids_and_limits(path: Path) -> None:
    key = add_key(path, "acme", "--running", "3", "--priority", "batch")
    status, out, _ = keys_command("list", file=path)
    assert status == 0
    assert out.split()[:2] == ["acme", hash_key(key)[:8]]
    assert "running=3" in out
    assert "priorities=batch" in out
    assert hash_key(key) not in out


def test_a_second_key_of_a_name_has_to_be_asked_for(path: Path) -> None:
    add_key(path, "acme")
    status, out, error = keys_command("add", "acme", file=path)
    assert (status, out) == (1, "")
    assert "--another" in error


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("revoke", "nobody"), 1, "has no key of nobody"),
        (("list",), 0, ""),
        (("add", "a b"), 2, "is no name of a key"),
        (("add", "a", "--queued", "0"), 2, "no whole number above 0"),
    ],
)
def test_wrong_commands_fail_with_a_sentence(path: Path, arguments: tuple[str, ...], status: int, reason: str) -> None:
    add_key(path, "acme")
    got, _, error = keys_command(*arguments, file=path)
    assert got == status
    assert reason in error


def test_comments_stay_when_keys_change(path: Path) -> None:
    path.write_text("# of the first customer\n")
    add_key(path, "acme")
    add_key(path, "other")
    keys_command("revoke", "acme", file=path)
    lines = path.read_text().splitlines()
    assert lines[0] == "# of the first customer"
    assert json.loads(lines[1])["name"] == "other"


def test_a_link_to_the_file_stays_a_link(path: Path) -> None:
    real = path.with_name("real")
    real.touch()
    path.symlink_to(real)
    key = add_key(path, "acme")
    assert path.is_symlink()
    assert KeyFile(path).find(key)


def test_the_file_may_be_a_setting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVATAR_API_KEYS", raising=False)
    status, _, error = keys_command("list")
    assert status == 2
    assert "AVATAR_API_KEYS" in error
    monkeypatch.setenv("AVATAR_API_KEYS", os.fspath(path))
    assert keys_command("add", "acme")[0] == 0
    assert path.exists()
