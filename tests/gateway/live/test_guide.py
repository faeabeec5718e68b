"""The guide to live sessions has a table for each message, with the words of the models."""

import re
from pathlib import Path

import pytest

from gateway.live.messages import CALLER_MESSAGES, GATEWAY_MESSAGES
from gateway.settings import Settings
from gateway.socket_connection import MESSAGE_BYTES

GUIDE = (Path(__file__).parents[3] / "docs/guide/live-socket.md").read_text()


def table(model: type) -> str:
    """Return what the guide has to say about a message."""
    schema = model.model_json_schema()  # type: ignore[attr-defined]
    properties = dict(schema["properties"])
    kind = properties.pop("type")["const"]
    lines = [f"**`{kind}`** {schema['description']}"]
    if properties:
        lines += ["", "| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in properties.items():
        types = [each.get("type") for each in field.get("anyOf", [field])]
        types = ["object" if each == "object" else str(each) for each in types if each != "null"]
        required = name in schema.get("required", ())
        default = "required" if required else f"`{field['default']!r}`" if field.get("default") is not None else "none"
        lines.append(f"| `{name}` | {' or '.join(types)} | {default} | {field['description']} |")
    return "\n".join(lines)


@pytest.mark.parametrize("model", [*CALLER_MESSAGES, *GATEWAY_MESSAGES], ids=lambda model: model.__name__)
def test_the_guide_has_the_table_of_each_message(model: type) -> None:
    assert table(model) in GUIDE


def test_the_guide_describes_no_other_message() -> None:
    assert len(re.findall(r"^\*\*`[a-z_]+`\*\*", GUIDE, re.MULTILINE)) == len(CALLER_MESSAGES) + len(GATEWAY_MESSAGES)


def test_the_settings_and_limits_of_the_guide_are_those_of_the_code() -> None:
    for name in re.findall(r"`AVATAR_([A-Z_]+)`", GUIDE):
        assert name.lower() in {*Settings.model_fields, "live_sessions"}, name
    assert MESSAGE_BYTES == 4 * 2**20
    assert "larger than 4 MiB" in GUIDE
