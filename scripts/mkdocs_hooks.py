"""Show the documents at the root of the repository as pages of the documentation site (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# page of the site: document at the root
INCLUDED = {
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
PAGES = {document: page for page, document in INCLUDED.items()}


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:  # noqa: ANN401 - MkDocs passes its own objects
    """Return the text of a page: that of the root document if the page stands for one (an event of MkDocs)."""
    document = INCLUDED.get(page.file.src_uri)
    return included((ROOT / document).read_text("utf-8")) if document else markdown


def included(text: str) -> str:
    """Return a root document with its links rewritten for a page at the top of `docs/`."""
    return re.sub(r"\]\(([^)#:]+)((?:#[^)]*)?)\)", lambda link: f"]({_target(link[1])}{link[2]})", text)


def _target(path: str) -> str:
    return PAGES.get(path, path.removeprefix("docs/"))
