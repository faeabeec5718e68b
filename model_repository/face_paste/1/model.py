"""Frames, boxes and generated faces in, frames with those faces out."""

import triton_python_backend_utils as pb_utils

from lipsync.face_crop import paste
from lipsync.tensors import FACE_PASTE
from lipsync.triton.python_model import PythonModel


class TritonPythonModel:
    def initialize(self, args):
        self._model = PythonModel(pb_utils, FACE_PASTE, paste)

    def execute(self, requests):
        return self._model.execute(requests)
