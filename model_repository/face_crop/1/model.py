"""Frames and boxes in, faces of 96×96 out; `mel`, where it is sent, says how many."""

import triton_python_backend_utils as pb_utils

from lipsync.face_crop import crop
from lipsync.tensors import FACE_CROP
from lipsync.triton.python_model import PythonModel


def crop_faces(frames, boxes, mel):
    return crop(frames, boxes, None if mel is None else len(mel))


class TritonPythonModel:
    def initialize(self, args):
        self._model = PythonModel(pb_utils, FACE_CROP, crop_faces)

    def execute(self, requests):
        return self._model.execute(requests)
