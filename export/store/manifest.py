"""The manifest of a repository: every file by its hash, and what the exports are. Pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from .errors import StoreError
from .location import HASH

FORMAT = 1  # a reader rejects any other
MAX_BYTES = 16 << 20
MAX_FILES = 20_000
MAX_DEPTH = 8
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # no hidden file, no `..`, nothing that a shell would read


@dataclass(frozen=True)
class StoredFile:
    """A file of the repository: its path there, with slashes, its SHA-256 and its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What a repository is.

    Attributes:
        project: the version of this project that pushed it.
        profile: the kind of machine that its configurations are for.
        networks: of each exported network its versions, with format, precision, checkpoint and report.
        files: all files.
        folders: the empty folders: Triton wants one for each version of an ensemble.
    """

    project: str
    profile: str
    files: tuple[StoredFile, ...]
    folders: tuple[str, ...] = ()
    networks: Mapping[str, object] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the text whose hash names the manifest: the same for the same repository."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True) + "\n").encode()

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)


def digest_of(content: bytes) -> str:
    """Return the hash that names a manifest."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes) -> Manifest:
    """Read a manifest from a store that nobody needs to trust.

    Raises:
        StoreError: it is none, or a path in it would leave the repository or exists twice.
    """
    try:
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise StoreError(f"the manifest has format {fields['format']!r}, and this version reads {FORMAT}")
        files = tuple(_file(entry) for entry in fields["files"])
        folders = tuple(_path(path) for path in fields["folders"])
        manifest = Manifest(str(fields["project"]), str(fields["profile"]), files, folders, dict(fields["networks"]))
    except StoreError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError("the manifest is damaged: it is not what `push` writes") from error
    if not 0 < len(files) + len(folders) <= MAX_FILES:
        raise StoreError(f"the manifest has no file, or more than {MAX_FILES}")
    _check_tree([file.path for file in files], folders)
    return manifest


def _file(entry: Mapping[str, object]) -> StoredFile:
    digest, size = entry["sha256"], entry["size"]
    if not isinstance(digest, str) or not HASH.fullmatch(digest) or type(size) is not int or size < 0:
        raise StoreError(f"the manifest is damaged: {entry.get('path')!r} has no valid hash or size")
    return StoredFile(_path(entry["path"]), digest, size)


def _path(path: object) -> str:
    """Return a path below the repository, in plain segments."""
    segments = path.split("/") if isinstance(path, str) else []
    if not 0 < len(segments) <= MAX_DEPTH or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise StoreError(f"the manifest names {str(path)[:200]!r}, which is no path of a model repository")
    return "/".join(segments)


def _check_tree(files: Iterable[str], folders: Iterable[str]) -> None:
    """Reject a path that exists twice, or is a file and a folder."""
    seen: set[str] = set()
    parents: set[str] = set()
    for path in (*files, *folders):
        if path.lower() in seen:  # also on a file system that does not distinguish the two
            raise StoreError(f"the manifest names {path!r} twice")
        seen.add(path.lower())
        segments = path.lower().split("/")
        parents |= {"/".join(segments[:count]) for count in range(1, len(segments))}
    if both := seen & parents:
        raise StoreError(f"the manifest names {sorted(both)[0]!r} as a file and as a folder")
