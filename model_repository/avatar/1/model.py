"""The form's files and options in; progress, chunks of mp4 and a summary out, as the job gets on."""

import triton_python_backend_utils as pb_utils

from avatar.serving.render_model import RenderModel


class TritonPythonModel:
    def initialize(self, args):
        self._avatar = RenderModel(pb_utils, args)

    def execute(self, requests):
        self._avatar.execute(requests)

    def finalize(self):
        self._avatar.close()
