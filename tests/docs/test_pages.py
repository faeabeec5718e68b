"""Every page is short, its links and names are right, and generated pages are up to date."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from avatar.form.fields import OPTION_FIELDS
from avatar.serving.metrics import MODEL_METRICS
from avatar.settings import LiveSettings, described
from gateway.app import create_app
from gateway.metrics import METRICS
from gateway.settings import SETTINGS, load
from lipsync.tensors import MODELS
from scripts.mkdocs_hooks import INCLUDED, included
from tests.docs.pages import COMMANDS, DOCS, PAGES, REFERENCE, ROOT

README_LINES, PAGE_LINES = 150, 250
# Names of earlier builds, allowed only where a document lists old names.
OLD = (
    "lipsync_client",
    "lipsync-client",
    "AVATAR_TRITON`",
    "AVATAR_MAX_WAITING",
    "AVATAR_LIVE_MIB",
    "AVATAR_ACCEPT_LICENCE",
    "jobs_refused",
    "licence",
)


def test_the_readme_is_one_page() -> None:
    assert PAGES["README.md"].count("\n") <= README_LINES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short(page: str) -> None:
    assert PAGES[page].count("\n") <= PAGE_LINES


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_an_existing_file_and_section(page: str) -> None:
    for target, section in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", PAGES[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if section:
            # such a page of the site shows a document at the root
            name = INCLUDED.get(path.name, "") if path.parent == DOCS else ""
            text = (ROOT / name if name else path).read_text("utf-8")
            assert section in _anchors(text), f"{target}#{section}"


def _anchors(text: str) -> set[str]:
    """Return the anchors of the sections, as GitHub and MkDocs both make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def test_root_documents_keep_their_links_on_the_site() -> None:
    text = "[a](docs/adr/index.md#x) [b](CONTRIBUTING.md) [c](https://example.com/docs/x) [d](#y)"
    assert included(text) == "[a](adr/index.md#x) [b](contributing.md) [c](https://example.com/docs/x) [d](#y)"
    for document in INCLUDED.values():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", included((ROOT / document).read_text("utf-8"))):
            assert (DOCS / target).exists(), f"{document}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r"^ +- .*?([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    assert navigation == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def test_every_decision_record_is_in_the_index() -> None:
    records = {path.name for path in (DOCS / "adr").glob("0*.md")}
    assert records == set(re.findall(r"\((0[^)]*)\)", PAGES["docs/adr/index.md"]))
    for name in records:
        assert PAGES[f"docs/adr/{name}"].startswith(f"# {int(name[:4])}. "), name


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_no_page_uses_old_names(page: str) -> None:
    text = PAGES[page].split("## Old names")[0]
    assert [word for word in OLD if word in text] == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = {each for text in PAGES.values() for each in re.findall(r"`make ([a-z-]+)", text)}
    named |= {word for _, words in COMMANDS if words[0] == "make" for word in words[1:] if word.isidentifier()}
    assert {"demo", "up", "test", "test-long", "check", "docs", "bench", "perf", "setup", "lock"} <= named <= targets
    readme = PAGES["README.md"]
    assert "make demo" in readme
    assert "make test" in readme


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", *(page for page in PAGES if page.startswith("docs/"))])
def test_every_path_of_the_repository_that_is_named_exists(page: str) -> None:
    rooms = (
        "avatar|lipsync|gateway|export|embedded|client|demo|bench|scripts|docker|tests|samples|model_repository|docs"
    )
    for path in re.findall(rf"(?<![\w/.-])((?:{rooms})/[\w./-]*[\w/])", PAGES[page]):
        if any(word in path for word in ("NAME", "NUMBER")):
            continue
        assert (ROOT / path).exists(), path


def test_every_module_that_the_architecture_names_exists() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "build", "out"))]
    modules = [f"/{path.relative_to(ROOT).as_posix()}" for folder in folders for path in folder.rglob("*.py")]
    named = set(re.findall(r"[\w/]+\.py", PAGES["ARCHITECTURE.md"]))
    assert {"avatar/faces/selection.py", "media/audio.py"} <= named
    assert {
        name for name in named if "NAME" not in name and not any(path.endswith(f"/{name}") for path in modules)
    } == set()


def test_the_architecture_names_every_package() -> None:
    page = PAGES["ARCHITECTURE.md"]
    for room in (each.parent for each in (ROOT / "avatar").glob("*/__init__.py")):
        assert f"{room.name}/" in page, room.name
    for folder in ("lipsync", "avatar", "gateway", "export", "embedded", "client", "demo", "bench", "tests"):
        assert f"| `{folder}/` |" in page


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_doc_tables.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_option_setting_metric_and_tensor_is_in_the_reference() -> None:
    rows = {
        "options": {option.name for option in OPTION_FIELDS},
        "settings": {setting.variable for setting in (*SETTINGS, *described(LiveSettings))},
        "metrics": {metric.name for metric in METRICS} | {metric.name for metric in MODEL_METRICS},
        "models": {model.name for model in MODELS}
        | {each.name for model in MODELS for each in (*model.inputs, *model.outputs)}
        - {each.name for each in OPTION_FIELDS},
    }
    assert {f"docs/reference/{name}.md" for name in rows} == set(REFERENCE)
    for name, documented in rows.items():
        assert {each for each in documented if f"`{each}`" not in REFERENCE[f"docs/reference/{name}.md"]} == set()


def test_every_form_field_is_documented() -> None:
    schemas = create_app(load()).openapi()["components"]["schemas"]
    forms = {name: each["properties"] for name, each in schemas.items() if "face_file" in each.get("properties", {})}
    assert forms.keys() == {"AvatarForm", "JobForm", "KeptFaceForm"}
    text = "".join(PAGES[f"docs/{page}.md"] for page in ("guide/http", "guide/jobs", "reference/options"))
    for properties in forms.values():
        for field, about in properties.items():
            assert f"| `{field}` |" in text, field
            assert about["description"]


def test_every_variable_of_the_compose_file_is_documented() -> None:
    named = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    assert {"EXPORT_PROFILE", "GATEWAY_PORT"} <= named
    text = PAGES["docs/operations/docker.md"] + PAGES["docs/reference/settings.md"]
    usual = {"HTTPS_PROXY", "NO_PROXY"}
    assert {name for name in named - usual if f"`{name}`" not in text} == set()
