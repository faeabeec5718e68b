"""A face once, then speech as it is spoken in; frames out, each as soon as all that it hears has been said."""

import triton_python_backend_utils as pb_utils

from avatar.serving.live_model import LiveModel


class TritonPythonModel:
    def initialize(self, args):
        self._live = LiveModel(pb_utils, args)

    def execute(self, requests):
        self._live.execute(requests)

    def finalize(self):
        self._live.close()
