"""Face candidates in, the faces that remain after non-maximum suppression out."""

import triton_python_backend_utils as pb_utils

from lipsync.face_detection import non_max_suppression
from lipsync.tensors import FACE_NMS
from lipsync.triton.python_model import PythonModel


class TritonPythonModel:
    def initialize(self, args):
        self._model = PythonModel(pb_utils, FACE_NMS, non_max_suppression)

    def execute(self, requests):
        return self._model.execute(requests)
