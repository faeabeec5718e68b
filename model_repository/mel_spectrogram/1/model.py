"""Speech in, the mel window of each frame out."""

import numpy as np
import triton_python_backend_utils as pb_utils

from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_windows import mel_windows
from lipsync.tensors import MEL_SPECTROGRAM
from lipsync.triton.cpu import use_one_blas_thread
from lipsync.triton.python_model import PythonModel


def windows_of_audio(audio, fps):
    return mel_windows(mel_spectrogram(audio), float(fps[0]))


class TritonPythonModel:
    def initialize(self, args):
        self._model = PythonModel(pb_utils, MEL_SPECTROGRAM, windows_of_audio)
        # the first call computes the filters: here, not in the first request
        windows_of_audio(np.zeros(SAMPLE_RATE, np.float32), np.array([25.0]))
        use_one_blas_thread()  # after it, because it limits the libraries that are loaded

    def execute(self, requests):
        return self._model.execute(requests)
