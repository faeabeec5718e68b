"""The page about proxies: its examples agree with the defaults of the gateway."""

import re
from pathlib import Path

import pytest

from gateway.settings import Settings, load

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "proxy.md").read_text("utf-8")
NGINX, HAPROXY = (re.findall(rf"```{name}\n(.*?)```", PAGE, re.S)[0] for name in ("nginx", "haproxy"))


def test_the_examples_accept_every_form_that_the_gateway_accepts() -> None:
    largest = Settings().max_form_bytes
    (mebibytes,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    (size,) = re.findall(r"req\.body_size gt (\d+)", HAPROXY)
    assert int(mebibytes) * 2**20 == int(size) == largest


def test_the_examples_lead_to_the_port_of_the_gateway_and_block_its_metrics() -> None:
    for example in (NGINX, HAPROXY):
        assert f"127.0.0.1:{Settings().port}" in example
        assert "/metrics" in example
        assert "X-Forwarded-For" in example


def test_the_settings_of_the_page_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```ini\n(.*?)```", PAGE, re.S)
    for line in block.split():
        monkeypatch.setenv(*line.split("=", 1))
    settings = load()
    assert settings.host == "127.0.0.1"
    assert settings.cors_origins == ("https://www.example.com",)
    assert settings.keep_alive_timeout > 60  # nginx keeps an idle connection for so long
