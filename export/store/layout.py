"""The keys of a store's files; what they are is said where this room is described."""

from __future__ import annotations


def blob_key(digest: str) -> str:
    """Return the key of a file's content."""
    return f"blobs/{digest}"


def manifest_key(digest: str) -> str:
    """Return the key of a manifest."""
    return f"manifests/{digest}.json"


def signature_key(digest: str) -> str:
    """Return the key of a manifest's signature."""
    return f"signatures/{digest}.sig"


def tag_key(tag: str) -> str:
    """Return the key of a tag."""
    return f"tags/{tag}"
