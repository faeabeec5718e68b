"""Load checkpoints, in any of their published forms, into the networks.

Loading a pickle can run code, so pickles are read with `weights_only=True`. That mode rejects TorchScript archives;
of those only the state dict is used.
"""

from __future__ import annotations

import mmap
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..networks.s3fd import S3FD
from ..networks.wav2lip import Wav2Lip

STAND_IN = "stand_in"  # name of the entry (.pth) or graph node (.pb) that marks a stand-in
MARK = re.compile(rb"talking-avatar stand-in [0-9a-f]{16}")  # the content of that entry
_PARALLEL = "module."  # prefix of every tensor name in a checkpoint of a data-parallel model
_UNREADABLE = Exception  # a file that is no pickle makes the unpickler raise anything, even MemoryError

Net = TypeVar("Net", bound=nn.Module)


class CheckpointError(ExportError):
    """A checkpoint cannot be used; the message names the file and the reason."""


def load_wav2lip(path: Path) -> Wav2Lip:
    """Return Wav2Lip with the weights of `path`, in eval mode.

    Raises:
        CheckpointError: the file is not a Wav2Lip checkpoint in one of the known forms.
    """
    return _load(Wav2Lip, path)


def load_s3fd(path: Path) -> S3FD:
    """Return S3FD with the weights of `path`, in eval mode.

    Raises:
        CheckpointError: the file is not an S3FD checkpoint.
    """
    return _load(S3FD, path)


def is_stand_in(path: Path) -> bool:
    """Return whether `export.stand_ins` wrote the checkpoint; the mark is inside the file, not in its name.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return stand_in_mark(path) is not None


def stand_in_mark(path: Path) -> str | None:
    """Return the mark of a stand-in, which contains its version, or None for a real checkpoint.

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


def _load(kind: type[Net], path: Path) -> Net:
    _check_content(path)
    with torch.device("meta"):
        net = kind()
    state = _archived_state(path) if _is_torchscript(path) else _bare_state(_read(path))
    net.load_state_dict(_checked(state, net.state_dict(), path, kind.__name__), strict=True, assign=True)
    return net.requires_grad_(False).eval()


def _check_content(path: Path) -> None:
    """Reject the usual results of a failed download, with a message that names the cause."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise CheckpointError(f"{path}: this is a web page, not a checkpoint; download the file from another address")
    if start.startswith(b"pk\x03\x04") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated, the archive ends after {size:,} bytes; download it again")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read(path: Path) -> Mapping[str, object]:
    try:
        # mapped into memory, so that finding the mark is quick; the old format does not support that
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _UNREADABLE as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # the name of a callable
            raise CheckpointError(f"{path}: contains more than weights, so loading it could run code") from error
        size = path.stat().st_size
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or truncated ({size:,} bytes)") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}, not a state dict")
    return content


def _archived_state(path: Path) -> Mapping[str, object]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch deprecates TorchScript, but such files exist
            archive = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: a damaged TorchScript archive; download it again") from error
    state: Mapping[str, object] = archive.state_dict()
    return state


def _bare_state(content: Mapping[str, object]) -> Mapping[str, object]:
    """Return the state dict without a stand-in's mark; it may be nested in the training state."""
    inner = content.get("state_dict")
    state = inner if isinstance(inner, Mapping) else content
    return {name: value for name, value in state.items() if name != STAND_IN}


def _checked(state: Mapping[str, object], wanted: Mapping[str, Tensor], path: Path, net: str) -> dict[str, Tensor]:
    """Return the state with the names, shapes and types of the network, or raise CheckpointError."""
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
