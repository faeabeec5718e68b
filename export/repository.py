"""A complete Triton model repository from a folder of checkpoints."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import lipsync
from lipsync import tensors
from lipsync.tensors import Model

from . import checkpoints, configs, onnx_file
from .checkpoints import Checkpoints, sha256
from .onnx_file import Origin

Say = Callable[[str], None]

RECORD_FILE = "export.json"  # beside each exported net: what it was made from
VERSION = "1"  # the one version of every model
_PACKAGE = Path(__file__).parent
_ARITHMETIC = Path(lipsync.__file__).parent


@dataclass(frozen=True)
class Net:
    """One exported net.

    Attributes:
        model: its entry in the table.
        checkpoint: the official name of its weights.
        code: the source files that decide what the export looks like.
    """

    model: Model
    checkpoint: str
    code: tuple[Path, ...]


_PICKLED = (
    *(_PACKAGE / name for name in ("checkpoints.py", "graphs.py", "onnx_export.py", "onnx_file.py")),
    *(_PACKAGE / "networks" / name for name in ("s3fd.py", "wav2lip.py")),
    *(_ARITHMETIC / name for name in ("faces.py", "tensors.py")),
)
_FROZEN = (*(_PACKAGE / name for name in ("onnx_file.py", "segmentation.py")), _ARITHMETIC / "tensors.py")

NETS = (
    Net(tensors.S3FD, checkpoints.S3FD_FILE, _PICKLED),
    Net(tensors.WAV2LIP, checkpoints.WAV2LIP_FILE, _PICKLED),
    Net(tensors.WAV2LIP_GAN, checkpoints.WAV2LIP_GAN_FILE, _PICKLED),
    Net(tensors.SEGMENTATION, checkpoints.SEGMENTATION_FILE, _FROZEN),
)


def build(weights: Path, repository: Path, say: Say = print) -> None:
    """Make `repository` a complete model repository: nets from `weights`, Python models, ensembles, configs.

    What is up to date already is left as it is, so a second call costs no more than hashing the files.
    In the project's own `model_repository/` only the nets are written: the configs there are committed
    and name no checkpoint. Elsewhere each net's config says which checkpoint it runs on, in the
    parameters `checkpoint` (`real` or `stand-in`) and `checkpoint_sha256`.

    Args:
        weights: folder with the four checkpoints under their official names, all real or all stand-ins.
        repository: folder, made when it is not there; models of other names in it are left alone.
        say: takes one line of progress at a time.

    Raises:
        ExportError: checkpoints are missing, broken or mixed, or an exported net does not compute
            what its checkpoint does; what was there before stays then.
    """
    source = configs.committed()
    found = checkpoints.find(weights)
    if found.stand_ins:
        say(f"*** STAND-INS, NOT THE PUBLISHED WEIGHTS, in {weights}: the models run, what they show is made up ***")
    origins = _origins(found)
    repository.mkdir(parents=True, exist_ok=True)
    with _alone(repository, say):
        elsewhere = repository.resolve() != source.resolve()
        if elsewhere:
            _copy_models(source, repository)
        for net in NETS:
            origin = origins[net.checkpoint]
            _bring_up_to_date(net, found.paths[net.checkpoint], origin, repository / net.model.name / VERSION, say)
            if elsewhere:
                parameters = {"checkpoint": origin.kind, "checkpoint_sha256": origin.sha256}
                configs.write_one(net.model, repository, parameters)
        _name_strangers(repository, say)
    say(f"{repository}: complete, {len(tensors.MODELS)} models")


def _origins(found: Checkpoints) -> dict[str, Origin]:
    return {name: Origin(sha256(path), found.stand_ins) for name, path in found.paths.items()}


def _bring_up_to_date(net: Net, checkpoint: Path, origin: Origin, folder: Path, say: Say) -> None:
    name, target, record = net.model.name, folder / configs.NET_FILE, folder / RECORD_FILE
    for stale in folder.glob(f"*{onnx_file.TEMPORARY}"):
        stale.unlink()  # of an export that was killed
    wanted = asdict(origin) | {"version": lipsync.__version__, "code": [sha256(file) for file in net.code]}
    if _is_up_to_date(target, record, wanted):
        say(f"{name}: up to date with {checkpoint.name}")
        return
    say(f"{name}: exporting from {checkpoint.name}")
    started = time.monotonic()
    _export(net, checkpoint, target, origin)
    with onnx_file.written(record) as temporary:
        temporary.write_text(json.dumps(wanted | {"model": sha256(target)}, indent=2) + "\n", "utf-8")
    say(f"{name}: exported and checked, {time.monotonic() - started:.1f} s")


def _is_up_to_date(target: Path, record: Path, wanted: dict[str, object]) -> bool:
    try:
        made_from = json.loads(record.read_text("utf-8"))
        return bool(made_from == wanted | {"model": sha256(target)})
    except (OSError, ValueError):
        return False


def _export(net: Net, checkpoint: Path, target: Path, origin: Origin) -> None:
    # imported here: a run that finds everything up to date needs none of it
    if net.model is tensors.SEGMENTATION:
        from .segmentation import export_segmentation

        export_segmentation(checkpoint, target, origin)
        return
    from . import graphs, onnx_export

    if net.model is tensors.S3FD:
        detector = graphs.S3FDGraph(checkpoints.load_s3fd(checkpoint))
        onnx_export.export_s3fd(net.model, detector, target, origin)
    else:
        generator = graphs.Wav2LipGraph(checkpoints.load_wav2lip(checkpoint))
        onnx_export.export_wav2lip(net.model, generator, target, origin)


def _copy_models(source: Path, repository: Path) -> None:
    """Bring what is no export: Python models, the ensembles' empty version folders, their configs."""
    for model in tensors.MODELS:
        (repository / model.name / VERSION).mkdir(parents=True, exist_ok=True)
        for file in (source / model.name / VERSION).glob("*.py"):
            copy = repository / model.name / VERSION / file.name
            if not copy.is_file() or copy.read_bytes() != file.read_bytes():
                shutil.copyfile(file, copy)
    nets = {net.model.name for net in NETS}
    for model in tensors.MODELS:
        if model.name not in nets:
            configs.write_one(model, repository)


def _name_strangers(repository: Path, say: Say) -> None:
    known = {model.name for model in tensors.MODELS}
    strangers = sorted(path.parent.name for path in repository.glob(f"*/{configs.CONFIG_FILE}"))
    for name in [name for name in strangers if name not in known]:
        say(f"{name}: not one of this project's models, left alone; Triton will load it too")


@contextmanager
def _alone(repository: Path, say: Say) -> Iterator[None]:
    """Hold the repository against other exports into it; the lock ends with the process at the latest."""
    folder = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{repository}: another export is writing here, waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
