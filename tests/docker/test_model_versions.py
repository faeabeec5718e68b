"""Containers that take the models from a store, and a Triton that looks for new versions."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from embedded import container, guard
from embedded.progress import Progress
from export.cli import parser
from tests.support.dockerfiles import ROOT, compose, read_yaml

SERVICES: dict[str, dict[str, Any]] = read_yaml(ROOT / "docker" / "pull.yml")["services"]


def test_the_exporters_are_replaced_by_a_pull_with_the_image_of_triton() -> None:
    assert set(SERVICES) == {name for name in compose()["services"] if name.startswith("export")}
    triton = read_yaml(ROOT / "docker-compose.yml")["services"]["triton"]
    for service in SERVICES.values():
        assert service["image"] == triton["image"]
        assert service["build"]["dockerfile"] == triton["build"]["dockerfile"]
        assert service["environment"]["AVATAR_MODEL_STORE"].startswith("${AVATAR_MODEL_STORE:?")  # no default
        python, _, module, *command = service["entrypoint"]
        assert (python, module) == ("python3", "export")
        assert str(parser().parse_args(command).repository) == container.REPOSITORY


def test_triton_looks_for_new_versions_only_where_it_is_asked_for() -> None:
    assert not [flag for flag in container.arguments({}, "secret", "x") if "poll" in flag]
    argv = container.arguments({"AVATAR_TRITON_POLL": "5"}, "secret", "x")
    assert {"--model-control-mode=poll", "--repository-poll-secs=5"} <= set(argv)


@pytest.mark.parametrize("seconds", ["0", "-1", "5s", "1.5", " "])
def test_another_value_is_rejected(seconds: str) -> None:
    with pytest.raises(ValueError, match="AVATAR_TRITON_POLL is a whole number of seconds"):
        container.arguments({"AVATAR_TRITON_POLL": seconds}, "secret", "x")


@pytest.mark.parametrize("flags", [[], ["--model-control-mode=poll"]])
def test_the_guard_lets_a_polling_server_replace_the_processes_of_its_models(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    class Watch:
        def __init__(self, *_: object, reloads: bool) -> None:
            seen.append(reloads)

        def run(self) -> None:
            return None

        def stop(self) -> None:
            return None

    monkeypatch.setattr(guard, "ModelWatch", Watch)
    monkeypatch.setattr(Progress, "readable", lambda self: True)
    guard.Guard([sys.executable, "-c", "", *flags], None, "127.0.0.1:1").run()
    assert seen == [bool(flags)]
