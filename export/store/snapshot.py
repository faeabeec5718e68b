"""Read a repository on the disk: the manifest of what is there, and where each file comes from.

A TensorRT plan fits one kind of GPU only, so it is left out: the machine that pulls builds its own. Until then the
network is served from its ONNX file, as after an export.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import lipsync

from ..build import versions
from ..build.release import RELEASE_FILE, Release, model_folders
from ..errors import ExportError
from ..files import sha256
from ..triton_config import alternatives
from ..variants import Format
from .manifest import Manifest, StoredFile

ORIGIN_FILE = "pulled.json"  # in a repository that was pulled: from where
_LEFT_OUT = ("__pycache__",)


def take(repository: Path) -> tuple[Manifest, Mapping[str, Path]]:
    """Return the manifest of a repository, and the file that has the content of each hash in it.

    Raises:
        ExportError: the folder is no model repository, or a link in it could lead anywhere.
    """
    models = model_folders(repository)
    sources = dict(_sources(repository))
    paths = {}
    files = []
    for path, source in sources.items():
        digest = sha256(source)
        paths[digest] = source
        files.append(StoredFile(path, digest, source.stat().st_size))
    folders = _empty_folders(repository, sources)
    profile = Release.read(repository).profile
    networks = {model.name: facts for model in models if (facts := _facts(model))}
    return Manifest(lipsync.__version__, profile.value, tuple(files), tuple(folders), networks), paths


def _sources(repository: Path) -> Iterator[tuple[str, Path]]:
    """Yield the path of every file in the repository, and the file that has its content."""
    for path in sorted(repository.rglob("*")):
        if _is_left_out(path.relative_to(repository)):
            continue
        if path.is_symlink():
            raise ExportError(f"{path}: a link; a model repository is pushed without links")
        if path.is_file() and is_kept(path, repository):
            is_config = path.name == alternatives.CONFIG_FILE
            yield str(path.relative_to(repository)), _config(path.parent) if is_config else path


def is_kept(path: Path, repository: Path) -> bool:
    """Return whether a file belongs to the repository: to a model, or it says what is served."""
    return path.parent != repository or path.name == RELEASE_FILE


def _config(model: Path) -> Path:
    """Return the configuration that needs no plan."""
    without_plan = model / alternatives.FOLDER / f"{Format.ONNX}.pbtxt"
    return without_plan if without_plan.is_file() else model / alternatives.CONFIG_FILE


def _empty_folders(repository: Path, files: Iterable[str]) -> list[str]:
    """Return the folders that no file of the manifest is below: some hold a hidden file only."""
    filled = {str(parent) for file in files for parent in Path(file).parents}
    paths = [path.relative_to(repository) for path in sorted(repository.rglob("*")) if path.is_dir()]
    empty = [path for path in paths if str(path) not in filled and not _is_left_out(path)]
    return [str(path) for path in empty if not any(path in other.parents for other in empty)]


def _is_left_out(path: Path) -> bool:
    is_hidden = any(part.startswith(".") or part in _LEFT_OUT for part in path.parts)
    return is_hidden or path.name == Format.TENSORRT.file


def _facts(model: Path) -> dict[str, object]:
    """Return the versions of an exported network, by number."""
    return {
        str(version.number): {
            "export": version.export,
            **{key: version.record.get(key) for key in ("format", "precision", "weights", "checkpoint_sha256")},
            "report": version.report(),
        }
        for version in versions.list_versions(model)
    }
