"""wav2lip in its bare runtime, configured like the server's."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from export.build import versions
from export.validation import runtimes
from export.validation.runtimes import Run
from export.variants import Format
from lipsync.arrays import Array, Batch
from lipsync.tensors import WAV2LIP


class BareModel:
    """The newest exported wav2lip of a repository, in its own runtime.

    Args:
        repository: with an export of wav2lip.
        threads: of the runtime.

    Attributes:
        threads: of the runtime.
        variant: format and precision, for example `onnx fp32`.
        run: the loaded network.

    Raises:
        ExportError: the runtime cannot load the file.
        ValueError: there is no exported wav2lip.
    """

    def __init__(self, repository: Path, threads: int) -> None:
        exported = versions.list_versions(repository / WAV2LIP.name)
        if not exported:
            raise ValueError(f"{repository}: no exported {WAV2LIP.name}")
        record = exported[-1].record
        self.threads = threads
        self.variant = f"{record['format']} {record['precision']}"
        self.run = load_bare(exported[-1].folder / Format(str(record["format"])).file, threads)


def load_bare(path: Path, threads: int) -> Run:
    """Load the exported file in its runtime; an ONNX file in a session like the server's (a test compares them)."""
    if path.suffix != ".onnx":
        return runtimes.load(WAV2LIP, path)
    session = onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in WAV2LIP.outputs]

    def run(batch: Batch) -> list[Array]:
        feeds = {tensor.name: array for tensor, array in zip(WAV2LIP.inputs, batch, strict=True)}
        outputs: list[Array] = session.run(names, feeds)
        return outputs

    return run


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of embedded/backends/onnxruntime/model.py, which can be imported only inside Triton."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options
