"""What each model of the table runs on: a network's backend, Python, or an ensemble of other models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lipsync import tensors
from lipsync.tensors import Model

from ..variants import Profile


@dataclass(frozen=True)
class NetworkRuntime:
    """A neural network; its variant decides the backend, its `ServingProfile` the rest."""


@dataclass(frozen=True)
class PythonRuntime:
    """A `model.py` on the Python backend: one process, always on the CPU.

    Attributes:
        idle_seconds: for a model with sequences, seconds without a request after which Triton forgets a session.
        sessions: how many sessions Triton admits per instance; the model itself rejects earlier, with a reason.
        with_gpu: least and most instances if a GPU runs the networks, within that half the cores of the machine:
            Python's lock limits the remaining work of one process.
    """

    idle_seconds: int = 0
    sessions: int = 0
    with_gpu: tuple[int, int] = (1, 1)

    def instances(self, profile: Profile, cores: int) -> int:
        """Return the number of instances on a machine with this many cores."""
        least, most = self.with_gpu
        return 1 if profile is Profile.CPU else min(most, max(least, cores // 2))


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

# A step of an ensemble takes about 4 ms for 16 frames: one process would limit all callers together to what a tenth of
# the card can do.
_STEP = PythonRuntime(with_gpu=(4, 8))
_CROP = Step(tensors.FACE_CROP, {"frames": "frames", "boxes": "boxes", "mel": "mel"}, {"faces": "faces"})


def _wav2lip(network: Model) -> Step:
    return Step(network, {"face": "faces", "mel": "mel"}, {"mouth": "mouths"})


RUNTIMES: Mapping[str, Runtime] = {
    "mel_spectrogram": _STEP,
    "s3fd": NetworkRuntime(),
    "face_nms": _STEP,
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
    "face_crop": _STEP,
    "wav2lip": NetworkRuntime(),
    "wav2lip_gan": NetworkRuntime(),
    "lipsync": Ensemble((_CROP, _wav2lip(tensors.WAV2LIP))),
    "lipsync_gan": Ensemble((_CROP, _wav2lip(tensors.WAV2LIP_GAN))),
    "face_paste": _STEP,
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
    **{net.name: NetworkRuntime() for net in tensors.LIVE_NETWORKS.values()},
    "avatar": PythonRuntime(),
    # The model itself decides how long a session may be silent, and keeps it in Triton's table twice a second. Triton
    # waits for what is in that table when it is stopped.
    "live": PythonRuntime(idle_seconds=3, sessions=16384, with_gpu=(2, 32)),
}
