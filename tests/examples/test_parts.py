"""The notebook runs from top to bottom, and shows what it promises."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from embedded.server import Triton
from tests.examples.conftest import EXAMPLES

NOTEBOOK = EXAMPLES / "parts.ipynb"


def outputs(cell: nbformat.NotebookNode, kind: str) -> list[str]:
    """Return the outputs of a cell of one type."""
    return [each["data"][kind] for each in cell.outputs if kind in each.get("data", {})]


def _read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(
        each["text"] for each in cell.outputs if each["output_type"] == "stream" and each["name"] == "stdout"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_shows_faces_box_mel_mouths_and_frames(
    triton: Triton, material: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "AVATAR_SERVER": triton.grpc_address,
        "FACE": str(material / "face.png"),
        "SPEECH": str(material / "speech.wav"),
        "MPLCONFIGDIR": str(tmp_path),
        "IPYTHONDIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    notebook = _read()
    NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}).execute()
    setup, *cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert setup.outputs == []
    assert [len(outputs(cell, "image/png")) for cell in cells] == [1] * len(cells)
    faces, _, mel, _, frames = cells
    assert "score 1.00" in printed(faces) or "score 0." in printed(faces)
    assert "windows of (80, 16)" in printed(mel)
    assert printed(frames) == "largest change outside the box: 0\n"


def test_the_notebook_is_committed_without_outputs() -> None:
    notebook = _read()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 6
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
