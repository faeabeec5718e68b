"""The copies of the golden data and of the sample media in this project equal the originals."""

import hashlib
from pathlib import Path

import pytest

# sha256 over the files' names and bytes, in the order of their names: a changed copy fails everywhere
GOLDEN_DIGEST = "7d3314156fef8e28d6dbeb1a28f05721cc2ac0a6207126bb8ff77450d49cdadf"
SAMPLES = {
    "portrait.png": "8828e3f97f7a12f2b08a24840dae2636c818e2a5745fc676fc03715b6c8b653f",
    "speech.wav": "b0557cf95c974d930577e58e46b7f068c432a6e3afcc286563d88922b2a5315c",
}


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def test_the_golden_data_is_unchanged(golden: Path) -> None:
    assert _digest(golden) == GOLDEN_DIGEST


def test_the_golden_data_equals_the_shared_one_if_that_exists(golden: Path) -> None:
    shared = golden.parents[2] / "shared" / "golden"
    assert _digest(shared if shared.is_dir() else golden) == GOLDEN_DIGEST


@pytest.mark.parametrize("name", SAMPLES)
def test_the_credited_media_are_unchanged(samples: Path, name: str) -> None:
    assert hashlib.sha256((samples / name).read_bytes()).hexdigest() == SAMPLES[name]
