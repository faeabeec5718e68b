"""What each model of the table runs on: a network's backend, Python, or an ensemble of other models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lipsync import tensors
from lipsync.tensors import Model


@dataclass(frozen=True)
class NetworkRuntime:
    """A neural network; its variant decides the backend, its `ServingProfile` the rest."""


@dataclass(frozen=True)
class PythonRuntime:
    """A `model.py` on the Python backend: one process, always on the CPU.

    Attributes:
        idle_seconds: for a model with sequences, seconds without a request after which Triton forgets a session.
        sessions: how many sessions Triton admits per instance; the model itself rejects earlier, with a reason.
        instances_with_gpu: instances if a GPU runs the networks; then Python's lock limits the remaining work.
    """

    idle_seconds: int = 0
    sessions: int = 0
    instances_with_gpu: int = 1


@dataclass(frozen=True)
class Step:
    """One model of an ensemble; both maps are from the model's tensor names to the ensemble's."""

    model: Model
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Ensemble:
    """A chain of models inside Triton, in the order of the data."""

    steps: tuple[Step, ...]


Runtime = NetworkRuntime | PythonRuntime | Ensemble

_CROP = Step(tensors.FACE_CROP, {"frames": "frames", "boxes": "boxes", "mel": "mel"}, {"faces": "faces"})


def _wav2lip(network: Model) -> Step:
    return Step(network, {"face": "faces", "mel": "mel"}, {"mouth": "mouths"})


RUNTIMES: Mapping[str, Runtime] = {
    "mel_spectrogram": PythonRuntime(),
    "s3fd": NetworkRuntime(),
    "face_nms": PythonRuntime(),
    "detect_faces": Ensemble(
        (
            Step(tensors.S3FD, {"image": "frames"}, {"boxes": "candidates", "scores": "candidate_scores"}),
            Step(
                tensors.FACE_NMS,
                {"boxes": "candidates", "scores": "candidate_scores"},
                {"boxes": "boxes", "scores": "scores"},
            ),
        )
    ),
    "face_crop": PythonRuntime(),
    "wav2lip": NetworkRuntime(),
    "wav2lip_gan": NetworkRuntime(),
    "lipsync": Ensemble((_CROP, _wav2lip(tensors.WAV2LIP))),
    "lipsync_gan": Ensemble((_CROP, _wav2lip(tensors.WAV2LIP_GAN))),
    "face_paste": PythonRuntime(),
    "lipsync_clip": Ensemble(
        (
            Step(tensors.MEL_SPECTROGRAM, {"audio": "audio", "fps": "fps"}, {"mel": "mel"}),
            _CROP,
            _wav2lip(tensors.WAV2LIP),
            Step(
                tensors.FACE_PASTE,
                {"frames": "frames", "boxes": "boxes", "mouths": "mouths"},
                {"frames": "result"},
            ),
        )
    ),
    "segmentation": NetworkRuntime(),
    "avatar": PythonRuntime(),
    # The model itself decides how long a session may be silent, and keeps it in Triton's table twice a second. Triton
    # waits for what is in that table when it is stopped.
    "live": PythonRuntime(idle_seconds=3, sessions=16384, instances_with_gpu=4),
}
