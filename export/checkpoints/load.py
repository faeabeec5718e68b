"""Checkpoints as they are met in the wild, to networks; and what a folder of them must hold.

    CheckpointError             a file is not the checkpoint that its name says
    ├── NoCheckpoints           a folder holds none of the four
    └── IncompleteCheckpoints   it holds some of them, or stand-ins beside real ones

A pickle runs code when it is loaded, so everything here is read with `weights_only=True`; a TorchScript
archive, which that refuses, gives nothing but its state dict.
"""

from __future__ import annotations

import hashlib
import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..networks.s3fd import S3FD
from ..networks.wav2lip import Wav2Lip

WAV2LIP_FILE, WAV2LIP_GAN_FILE, S3FD_FILE = "wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth"
SEGMENTATION_FILE = "xception_pascalvoc.pb"
FILES = (WAV2LIP_FILE, WAV2LIP_GAN_FILE, S3FD_FILE, SEGMENTATION_FILE)

STAND_IN = "stand_in"  # the entry of a .pth and the node of a .pb that mark a stand-in
MARK = re.compile(rb"talking-avatar stand-in [0-9a-f]{16}")  # what a node of that name holds
_PARALLEL = "module."  # in front of every name, when the checkpoint was written by a data-parallel model
_UNREADABLE = Exception  # what is no pickle can make the unpickler raise anything, IndexError and MemoryError too

Net = TypeVar("Net", bound=nn.Module)


class CheckpointError(ExportError):
    """A checkpoint cannot be used; the message names the file and says why."""


class NoCheckpoints(CheckpointError):
    """The folder holds none of the four checkpoints."""


class IncompleteCheckpoints(CheckpointError):
    """The folder holds half a set, or a mix of stand-ins and real ones."""


@dataclass(frozen=True)
class CheckpointSet:
    """The four files of a complete folder, all real or all stand-ins."""

    folder: Path
    stand_ins: bool

    @property
    def paths(self) -> dict[str, Path]:
        """The files by official name."""
        return {name: self.folder / name for name in FILES}


def find_checkpoints(folder: Path) -> CheckpointSet:
    """The complete set of checkpoints in `folder`.

    Raises:
        NoCheckpoints: it holds none.
        IncompleteCheckpoints: it holds some, or stand-ins beside real ones.
        CheckpointError: one of them cannot be read.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if len(missing) == len(FILES):
        raise NoCheckpoints(f"{folder}: no checkpoints here; expected {', '.join(FILES)}")
    if missing:
        raise IncompleteCheckpoints(f"{folder}: half a set of checkpoints, missing: {', '.join(missing)}")
    stand_ins = [name for name in FILES if is_stand_in(folder / name)]
    if 0 < len(stand_ins) < len(FILES):
        raise IncompleteCheckpoints(f"{folder}: {', '.join(stand_ins)}: stand-ins beside real checkpoints")
    return CheckpointSet(folder, bool(stand_ins))


def load_wav2lip(path: Path) -> Wav2Lip:
    """Wav2Lip with the weights of `path`, in eval mode.

    Raises:
        CheckpointError: the file is not a Wav2Lip checkpoint in one of the known forms.
    """
    return _load(Wav2Lip, path)


def load_s3fd(path: Path) -> S3FD:
    """S3FD with the weights of `path`, in eval mode.

    Raises:
        CheckpointError: the file is not an S3FD checkpoint.
    """
    return _load(S3FD, path)


def is_stand_in(path: Path) -> bool:
    """Whether a checkpoint was written by `export.stand_ins`; the mark is inside the file, not in its name.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return stand_in_mark(path) is not None


def stand_in_mark(path: Path) -> str | None:
    """The mark of a stand-in, which tells its version; None in a real checkpoint.

    Raises:
        CheckpointError: the file cannot be read.
    """
    _check_content(path)
    if path.suffix == ".pb":
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = MARK.search(content) if content.find(STAND_IN.encode()) >= 0 else None
            return found.group().decode() if found else None
    if _is_torchscript(path):
        return None
    mark = _read(path).get(STAND_IN)
    return mark if isinstance(mark, str) else None


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(kind: type[Net], path: Path) -> Net:
    _check_content(path)
    with torch.device("meta"):
        net = kind()
    state = _archived_state(path) if _is_torchscript(path) else _bare_state(_read(path))
    net.load_state_dict(_checked(state, net.state_dict(), path, kind.__name__), strict=True, assign=True)
    return net.requires_grad_(False).eval()


def _check_content(path: Path) -> None:
    """Refuse, by name, what a broken download leaves behind."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise CheckpointError(f"{path}: a web page, not a checkpoint; the download went to the wrong address")
    if start.startswith(b"pk\x03\x04") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated, the end of the archive is missing; it has {size:,} bytes")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read(path: Path) -> Mapping[str, object]:
    try:
        # mapped, not read: a mark is looked up in a moment; the old format cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _UNREADABLE as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # a name of something to call
            raise CheckpointError(f"{path}: holds more than weights, and loading that could run code") from error
        size = path.stat().st_size
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or a truncated one; it has {size:,} bytes") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _archived_state(path: Path) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is on its way out; these files are not
            archive = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: a broken TorchScript archive") from error
    state: Mapping[str, object] = archive.state_dict()
    return state


def _bare_state(content: Mapping[str, object]) -> Mapping[str, object]:
    """The state dict, from itself or from among training state, without a stand-in's mark."""
    inner = content.get("state_dict")
    state = inner if isinstance(inner, Mapping) else content
    return {name: value for name, value in state.items() if name != STAND_IN}


def _checked(state: Mapping[str, object], wanted: Mapping[str, Tensor], path: Path, net: str) -> dict[str, Tensor]:
    """The state with the names, shapes and types that the network has."""
    if state and all(str(name).startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    refusal = f"{path}: not a checkpoint of {net}"
    missing, unknown = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or unknown:
        raise CheckpointError(f"{refusal}: {_some(missing, 'missing')}; {_some(unknown, 'unknown')}")
    checked: dict[str, Tensor] = {}
    for name, want in wanted.items():
        have = state[name]
        if not isinstance(have, Tensor):
            raise CheckpointError(f"{refusal}: {name} is a {type(have).__name__}, not a tensor")
        if have.shape != want.shape:
            raise CheckpointError(f"{refusal}: {name} has shape {list(have.shape)}, expected {list(want.shape)}")
        if have.is_floating_point() != want.is_floating_point():
            raise CheckpointError(f"{refusal}: {name} is {have.dtype}, expected {want.dtype}")
        checked[name] = have.to(want.dtype)
    return checked


def _some(names: Iterable[object], what: str) -> str:
    names = sorted(map(str, names))
    return f"{len(names)} tensors {what}" + (f" ({names[0]}{', …' if len(names) > 1 else ''})" if names else "")
