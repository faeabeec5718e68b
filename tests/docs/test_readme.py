"""What README.md and CONTRIBUTING.md tell people to type works, and what they list is what there is."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from embedded.server import Triton
from gateway.app import create_app
from gateway.settings import Settings
from tests.support.gateway_process import Gateway

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
TEXTS = README + (ROOT / "CONTRIBUTING.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def _commands() -> list[list[str]]:
    lines = "\n".join(_blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", TEXTS, re.M))
    assert {"demo", "up", "test", "check", "bench", "setup"} <= named
    assert named <= targets


PYTHON_COMMANDS = [command for command in _commands() if command[0].endswith("python")]


@pytest.mark.parametrize("command", PYTHON_COMMANDS, ids=" ".join)
def test_every_python_command_that_is_named_takes_its_flags(command: list[str]) -> None:
    module = command[command.index("-m") + 1]
    words = command[command.index("-m") + 2 :]
    sub = [word for word in words[:1] if not word.startswith("-")]
    shown = subprocess.run([sys.executable, "-m", module, *sub, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown.stdout


def test_the_named_python_commands_are_those_that_scripts_call() -> None:
    assert {command[2] for command in PYTHON_COMMANDS} == {"export", "embedded", "gateway"}


def test_the_curl_line_gets_a_video(gateway: Gateway) -> None:
    (curl,) = (command for command in _commands() if command[0] == "curl")
    fields = [curl[i + 1].split("=", 1) for i, word in enumerate(curl) if word == "-F"]
    assert "http://127.0.0.1:16000/" in curl
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context((ROOT / at[1:]).open("rb")) for name, at in fields if at.startswith("@")}
        texts = {name: value for name, value in fields if not value.startswith("@")}
        answer = httpx.post(f"{gateway.url}/", files=files, data=texts, timeout=300)
    assert answer.status_code == 200, answer.text
    assert answer.content[4:8] == b"ftyp"


def test_the_python_example_for_direct_callers_runs(triton: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = _blocks("python")
    monkeypatch.chdir(ROOT)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(example.replace("127.0.0.1:8001", triton.grpc_address), {})  # noqa: S102 - our own README
    promised = re.search(r"# (\(.*?\))", example)
    assert promised
    assert said.getvalue().strip() == promised[1]


def test_the_tables_of_settings_and_models_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_doc_tables.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_form_field_is_documented() -> None:
    schema = create_app(Settings()).openapi()
    (form,) = (each for name, each in schema["components"]["schemas"].items() if "face_file" in each["properties"])
    for field, about in form["properties"].items():
        assert f"| `{field}` |" in README
        assert about["description"]


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_variable_of_the_compose_file_is_documented() -> None:
    named = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert {"EXPORT_PROFILE", "GATEWAY_PORT"} <= named
    usual = {"HTTPS_PROXY", "NO_PROXY"}
    assert {name for name in named - usual if f"`{name}`" not in README and f"`{name}=" not in README} == set()


def test_every_flag_of_the_export_is_documented() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "export", "models", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    for flag in re.findall(r"^  (--[a-z-]+)", shown.stdout, re.M):
        assert f"{flag}" in README, flag
