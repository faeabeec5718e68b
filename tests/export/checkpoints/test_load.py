"""Loading checkpoints: every known form, and every kind of invalid file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.checkpoints import load
from export.checkpoints.checkpoint_set import IncompleteCheckpoints, NoCheckpoints, find_checkpoints
from export.checkpoints.load import CheckpointError, load_s3fd, load_wav2lip
from export.checkpoints.registry import FILES
from export.files import sha256
from export.networks.s3fd import S3FD
from export.networks.wav2lip import Wav2Lip
from tests.support.golden_weights import GOLDEN

MARK = "talking-avatar stand-in 0123456789abcdef"


def random_state(original: Path) -> dict[str, Tensor]:
    """Return random values for the tensors of the original, which a file lists."""
    spec: list[tuple[str, list[int], str]] = json.loads(original.read_text())
    return {name: torch.rand(shape).to(getattr(torch, dtype)) for name, shape, dtype in spec}


@pytest.fixture(scope="module")
def wav2lip_state() -> dict[str, Tensor]:
    return random_state(GOLDEN / "wav2lip_state.json")


@pytest.fixture(scope="module")
def s3fd_state() -> dict[str, Tensor]:
    return random_state(GOLDEN / "s3fd_state.json")


def saved(content: object, **how: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def same(net: nn.Module, state: dict[str, Tensor]) -> bool:
    have = net.state_dict()
    return have.keys() == state.keys() and all(torch.equal(have[name], state[name]) for name in state)


def test_a_state_dict_among_training_state_with_module_in_front_loads(
    tmp_path: Path, wav2lip_state: dict[str, Tensor]
) -> None:
    path = tmp_path / "wav2lip.pth"
    state = {f"module.{name}": value for name, value in wav2lip_state.items()}
    torch.save({"state_dict": state, "optimizer": {"state": {}, "lr": 1e-4}, "global_step": 7}, path)
    net = load_wav2lip(path)
    assert same(net, wav2lip_state)
    assert not net.training


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bare_state_dict_loads_in_the_new_and_the_old_file_format(
    tmp_path: Path, s3fd_state: dict[str, Tensor], zipped: bool
) -> None:
    path = tmp_path / "s3fd.pth"
    torch.save(s3fd_state, path, _use_new_zipfile_serialization=zipped)
    assert same(load_s3fd(path), s3fd_state)
    assert not load.is_stand_in(path)


def test_a_torchscript_archive_gives_its_state_dict(tmp_path: Path, wav2lip_state: dict[str, Tensor]) -> None:
    with torch.device("meta"):  # the weights come from the state
        net = Wav2Lip()
    net.load_state_dict(wav2lip_state, assign=True)
    path = tmp_path / "wav2lip_gan.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        window, face = torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96)
        torch.jit.trace(net.eval(), (window, face), check_trace=False).save(path)  # type: ignore[no-untyped-call]
    assert same(load_wav2lip(path), wav2lip_state)
    assert not load.is_stand_in(path)


def test_half_precision_weights_become_single(tmp_path: Path, s3fd_state: dict[str, Tensor]) -> None:
    path = tmp_path / "s3fd.pth"
    torch.save({name: value.half() for name, value in s3fd_state.items()}, path)
    assert {value.dtype for value in load_s3fd(path).state_dict().values()} == {torch.float32}


PAGE = b"\n<!DOCTYPE html><html><body>404: Not Found</body></html>"
SMALL = {"weight": torch.zeros(3)}
BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a web page": (lambda: PAGE, "web page"),
    "an empty file": (lambda: b"", "empty"),
    "a text file": (lambda: b"version https://git-lfs.github.com/spec/v1\nsize 1\n", "not a PyTorch checkpoint"),
    "a truncated archive": (lambda: saved({"x": torch.rand(1000)})[:2000], "truncated.*2,000 bytes"),
    "a truncated old file": (
        lambda: saved({"x": torch.rand(1000)}, _use_new_zipfile_serialization=False)[:2000],
        "truncated.*2,000 bytes",
    ),
    "an archive with other content": (lambda: saved([1, 2]), "contains a list"),
    "another network": (lambda: saved(SMALL), "not a checkpoint of S3FD: .*missing.*1 tensors unknown \\(weight\\)"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_wrong_file_is_rejected_by_name_and_reason(tmp_path: Path, kind: str) -> None:
    content, reason = BAD_FILES[kind]
    path = tmp_path / "s3fd.pth"
    path.write_bytes(content())
    with pytest.raises(CheckpointError, match=reason) as rejected:
        load_s3fd(path)
    assert str(rejected.value).startswith(f"{path}: ")


def test_a_missing_file_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"s3fd\.pth: cannot be read"):
        load_s3fd(tmp_path / "s3fd.pth")


class Harmful:
    """An object that an attacker could put into a pickle."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.witness),)


def test_a_checkpoint_that_would_run_code_is_rejected_and_does_not_run_it(tmp_path: Path) -> None:
    path, witness = tmp_path / "s3fd.pth", tmp_path / "ran"
    torch.save({"x": Harmful(witness)}, path)
    with pytest.raises(CheckpointError, match="run code"):
        load_s3fd(path)
    assert not witness.exists()


CHANGES: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "missing": (lambda state: state.pop("fc7.bias"), r"1 tensors missing \(fc7\.bias\)"),
    "extra": (lambda state: state.update(more=torch.zeros(1)), r"1 tensors unknown \(more\)"),
    "shape": (
        lambda state: state.update({"fc7.bias": torch.zeros(7)}),
        r"fc7\.bias has shape \[7\], expected \[1024\]",
    ),
    "no tensor": (lambda state: state.update({"fc7.bias": 0.5}), r"fc7\.bias is a float, not a tensor"),
    "type": (
        lambda state: state.update({"fc7.bias": torch.zeros(1024, dtype=torch.int64)}),
        r"fc7\.bias is torch\.int64, expected torch\.float32",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_state_dict_that_differs_in_one_tensor_is_rejected(tmp_path: Path, change: str) -> None:
    state: dict[str, object] = {name: torch.zeros(()).expand(value.shape) for name, value in s3fd_shapes().items()}
    alter, reason = CHANGES[change]
    alter(state)
    path = tmp_path / "s3fd.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=reason):
        load_s3fd(path)


def s3fd_shapes() -> dict[str, Tensor]:
    with torch.device("meta"):
        return S3FD().state_dict()


def fill(folder: Path, stand_ins: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()) -> None:
    """Write small files; the tests of the stand-ins and of the repository find the marks in whole ones."""
    for name in FILES:
        mark = {load.STAND_IN: MARK} if name in stand_ins else {}
        if name in leave_out:
            continue
        if name.endswith(".pth"):
            torch.save(SMALL | mark, folder / name)
        else:
            (folder / name).write_bytes(f"a frozen graph {load.STAND_IN} {MARK if mark else ''}".encode())


def test_a_complete_folder_is_found_and_recognized_as_real_or_stand_in(tmp_path: Path) -> None:
    fill(tmp_path)
    assert not find_checkpoints(tmp_path).stand_ins
    fill(tmp_path, stand_ins=FILES)
    checkpoints = find_checkpoints(tmp_path)
    assert checkpoints.stand_ins == set(FILES)
    assert all(checkpoints.paths[name] == tmp_path / name for name in FILES)


def test_an_empty_folder_and_an_incomplete_set_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoints):
        find_checkpoints(tmp_path)
    fill(tmp_path, leave_out=("s3fd.pth", "wav2lip_gan.pth"))
    with pytest.raises(IncompleteCheckpoints, match=r"missing: wav2lip_gan\.pth, s3fd\.pth$"):
        find_checkpoints(tmp_path)


def test_a_single_checkpoint_is_completed_by_stand_ins_only_where_that_is_asked_for(tmp_path: Path) -> None:
    own, rest = tmp_path / "tuned.pth", tmp_path / "stand-ins"
    torch.save(SMALL, own)
    rest.mkdir()
    fill(rest, stand_ins=FILES)
    with pytest.raises(IncompleteCheckpoints, match=r"add --stand-ins; missing: wav2lip_gan\.pth"):
        find_checkpoints(None, {"wav2lip.pth": own})
    checkpoints = find_checkpoints(None, {"wav2lip.pth": own}, rest)
    assert checkpoints.stand_ins == set(FILES) - {"wav2lip.pth"}
    assert checkpoints.paths["wav2lip.pth"] == own
    assert checkpoints.paths["s3fd.pth"] == rest / "s3fd.pth"


def test_a_single_checkpoint_replaces_the_one_of_the_folder(tmp_path: Path) -> None:
    own = tmp_path / "tuned.pth"
    torch.save(SMALL, own)
    fill(tmp_path)
    assert find_checkpoints(tmp_path, {"wav2lip.pth": own}).paths["wav2lip.pth"] == own
    with pytest.raises(CheckpointError, match=r"absent\.pth: no such file"):
        find_checkpoints(tmp_path, {"wav2lip.pth": tmp_path / "absent.pth"})


@pytest.mark.parametrize("name", FILES)
def test_one_stand_in_among_real_checkpoints_is_named(tmp_path: Path, name: str) -> None:
    fill(tmp_path, stand_ins=(name,))
    with pytest.raises(IncompleteCheckpoints, match=f": {name}: stand-ins in one folder with real"):
        find_checkpoints(tmp_path)


def test_a_stand_in_is_recognized_under_any_name(tmp_path: Path) -> None:
    fill(tmp_path, stand_ins=("s3fd.pth",))
    moved = (tmp_path / "s3fd.pth").rename(tmp_path / "real.pth")
    assert load.is_stand_in(moved)


def test_sha256_is_the_hash_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    assert sha256(path) == hashlib.sha256(b"weights").hexdigest()
