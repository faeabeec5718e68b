"""A face once, then speech while it is spoken in; frames out, each as soon as its mel window is complete."""

import triton_python_backend_utils as pb_utils

from avatar.serving.live_model import LiveModel


class TritonPythonModel:
    def initialize(self, args):
        self._live = LiveModel(pb_utils, args)

    def execute(self, requests):
        self._live.execute(requests)

    def finalize(self):
        self._live.close()
