"""A manifest comes from a store that nobody needs to trust."""

from __future__ import annotations

import json
from typing import Any

import pytest

from export.store.errors import StoreError
from export.store.location import Source, parse_source
from export.store.manifest import Manifest, StoredFile, parse

HASH = "a" * 64
MANIFEST = Manifest("0.1.0", "cpu", (StoredFile("wav2lip/1/model.onnx", HASH, 3),), ("detect_faces/1",))


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST.to_bytes()), **fields}).encode()


def entry(path: object, digest: object = HASH, size: object = 3) -> dict[str, object]:
    return {"path": path, "sha256": digest, "size": size}


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert parse(MANIFEST.to_bytes()) == MANIFEST


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "wav2lip/../../outside",
        "/etc/passwd",
        "wav2lip//model.onnx",
        "wav2lip/./model.onnx",
        "wav2lip\\model.onnx",
        ".ssh/authorized_keys",
        "wav2lip/.hidden",
        "wav2lip/1/\n",
        "wav2lip/1/model.onnx\0",
        "",
        "a/" * 20 + "b",
        7,
        None,
    ],
)
def test_a_path_that_could_leave_the_repository_is_rejected(path: object) -> None:
    with pytest.raises(StoreError, match="no path of a model repository"):
        parse(changed(files=[entry(path)]))
    with pytest.raises(StoreError, match="no path of a model repository"):
        parse(changed(folders=[path]))


@pytest.mark.parametrize(
    "manifest",
    [
        changed(files=[entry("a/b"), entry("a/b")]),
        changed(files=[entry("a/b"), entry("A/b")]),
        changed(files=[entry("a"), entry("a/b")]),
        changed(files=[entry("a/b", digest="../../x")]),
        changed(files=[entry("a/b", digest=HASH.upper())]),
        changed(files=[entry("a/b", size=-1)]),
        changed(files=[entry("a/b", size=True)]),
        changed(files=[entry("a/b", size=1.5)]),
        changed(files=[], folders=[]),
        changed(files={"a": 1}),
        changed(files=[["a", "b"]]),
        changed(format=2),
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b"{}",
    ],
)
def test_a_damaged_manifest_is_rejected_in_one_sentence(manifest: bytes) -> None:
    with pytest.raises(StoreError, match="manifest") as raised:
        parse(manifest)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("s3://bucket/models", Source("s3://bucket/models")),
        ("s3://bucket/models@release-1.2", Source("s3://bucket/models", "release-1.2")),
        (f"s3://bucket@sha256:{HASH}", Source("s3://bucket", "", HASH)),
        ("/data/a@b/models", Source("/data/a@b/models")),
        ("/data/models@canary", Source("/data/models", "canary")),
    ],
)
def test_a_source_names_a_store_and_a_tag_or_a_hash(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "@latest", "ftp://host/models", "s3:///models", "a@sha256:12", "s3://b/m@x y"])
def test_what_names_no_store_is_rejected(text: str) -> None:
    with pytest.raises(StoreError):
        parse_source(text)
