"""The files that the examples in the documents use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import sample_files


@pytest.fixture(scope="module")
def material(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with face.jpg (320x240) and speech.wav, small enough to be quick."""
    return sample_files.write(samples, tmp_path_factory.mktemp("material"), "face.jpg")
