"""Face candidates in, the faces that remain after non-maximum suppression out."""

import triton_python_backend_utils as pb_utils

from lipsync.face_detection import suppress
from lipsync.tensors import FACE_NMS
from lipsync.triton.python_model import Serving


class TritonPythonModel:
    def initialize(self, args):
        self._serving = Serving(pb_utils, FACE_NMS, suppress)

    def execute(self, requests):
        return self._serving.answer(requests)
