"""A complete Triton model repository from a folder of checkpoints."""

from __future__ import annotations

import fcntl
import hashlib
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

from . import configs, onnx_file
from .errors import ExportError
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
    Net(tensors.S3FD, "s3fd.pth", _PICKLED),
    Net(tensors.WAV2LIP, "wav2lip.pth", _PICKLED),
    Net(tensors.WAV2LIP_GAN, "wav2lip_gan.pth", _PICKLED),
    Net(tensors.SEGMENTATION, "xception_pascalvoc.pb", _FROZEN),
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
    source = committed()
    origins = _origins(weights, say)
    repository.mkdir(parents=True, exist_ok=True)
    with _alone(repository, say):
        elsewhere = repository.resolve() != source.resolve()
        if elsewhere:
            _copy_models(source, repository)
        for net in NETS:
            origin = origins[net.checkpoint]
            _bring_up_to_date(net, weights / net.checkpoint, origin, repository / net.model.name / VERSION, say)
            if elsewhere:
                parameters = {"checkpoint": origin.kind, "checkpoint_sha256": origin.sha256}
                configs.write_one(net.model, repository, parameters)
        _name_strangers(repository, say)
    say(f"{repository}: complete, {len(tensors.MODELS)} models")


def committed() -> Path:
    """The project's `model_repository/`, beside this package whatever the working directory is.

    Raises:
        ExportError: the package was installed without it.
    """
    folder = _PACKAGE.parent / "model_repository"
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is missing: the Python models stand there. Run from a checkout of the project "
            "(pip install -e .), not from an installed copy of its packages alone"
        )
    return folder


def _origins(weights: Path, say: Say) -> dict[str, Origin]:
    """Each checkpoint's origin by file name: all there, and all of one kind."""
    from .checkpoints import is_stand_in

    missing = [net.checkpoint for net in NETS if not (weights / net.checkpoint).is_file()]
    if missing:
        raise ExportError(f"{weights}: {', '.join(missing)} missing; a repository needs all of {len(NETS)} checkpoints")
    origins = {
        net.checkpoint: Origin(_sha256(weights / net.checkpoint), is_stand_in(weights / net.checkpoint)) for net in NETS
    }
    stand_ins = [name for name, origin in origins.items() if origin.stand_in]
    if stand_ins and len(stand_ins) < len(NETS):
        raise ExportError(f"{weights}: {', '.join(stand_ins)} are stand-ins, the others are not; use one kind only")
    if stand_ins:
        say(
            f"*** STAND-INS, NOT THE PUBLISHED WEIGHTS, in {weights}: the models run, but what they show is made up ***"
        )
    return origins


def _bring_up_to_date(net: Net, checkpoint: Path, origin: Origin, folder: Path, say: Say) -> None:
    name, target, record = net.model.name, folder / configs.NET_FILE, folder / RECORD_FILE
    wanted = asdict(origin) | {"version": lipsync.__version__, "code": [_sha256(file) for file in net.code]}
    if _is_up_to_date(target, record, wanted):
        say(f"{name}: up to date with {checkpoint.name}")
        return
    started = time.monotonic()
    for stale in folder.glob(f"*{onnx_file.TEMPORARY}"):
        stale.unlink()
    _export(net, checkpoint, target, origin)
    with onnx_file.written(record) as temporary:
        temporary.write_text(json.dumps(wanted | {"model": _sha256(target)}, indent=2) + "\n", "utf-8")
    say(f"{name}: exported from {checkpoint.name} and checked, {time.monotonic() - started:.1f} s")


def _is_up_to_date(target: Path, record: Path, wanted: dict[str, object]) -> bool:
    try:
        made_from = json.loads(record.read_text("utf-8"))
        return bool(made_from == wanted | {"model": _sha256(target)})
    except (OSError, ValueError):
        return False


def _export(net: Net, checkpoint: Path, target: Path, origin: Origin) -> None:
    # imported here: PyTorch takes two seconds, TensorFlow four, and most runs need neither
    if net.model is tensors.SEGMENTATION:
        from .segmentation import export_segmentation

        export_segmentation(checkpoint, target, origin)
        return
    from . import checkpoints, graphs, onnx_export

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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
