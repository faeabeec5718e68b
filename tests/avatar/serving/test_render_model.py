"""The model `avatar`: what is free again when its caller has the summary."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from avatar.inference.bls_client import BlsInferenceClient
from avatar.pipeline import render
from avatar.resources.admission import Admission
from avatar.resources.workspace import Workspace
from avatar.serving.metrics import ModelMetrics
from avatar.serving.render_model import RenderModel
from avatar.serving.request import StreamRequest
from avatar.settings import StreamSettings
from avatar.testing import FakeInference
from tests.support.files import files_below
from tests.support.media import tone, write_still, write_wav


class Metrics:
    """What the model uses of `ModelMetrics`."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def observe(self, name: str, stage: str, seconds: float) -> None:
        self.stages.append(stage)


class Request:
    """What the model uses of a `StreamRequest`; when the summary is sent, it notes what is free and what is left."""

    def __init__(self, admission: Admission, metrics: Metrics, work: Path, files: dict[str, Path]) -> None:
        self.id, self.noted = "test", dict[str, Any]()
        self.inputs: dict[str, Any] = {name: np.fromfile(path, np.uint8) for name, path in files.items()}
        self._admission, self._metrics, self._work = admission, metrics, work

    def check(self) -> None:
        pass

    def texts(self) -> dict[str, str]:
        return {"file_type": "image"}

    def array(self, name: str) -> np.ndarray | None:
        return self.inputs.get(name)

    async def send(self, **outputs: Any) -> None:
        pass

    async def finish(self, summary: str) -> None:
        with self._admission.admit():  # Busy while the place is held
            async with self._admission.slot():
                self.noted = {"frames": json.loads(summary)["frames"], "stages": list(self._metrics.stages)}
                self.noted["files"] = [path for path in files_below(self._work) if path.suffix]


async def test_the_place_of_a_job_is_free_when_its_caller_has_the_summary(tmp_path: Path) -> None:
    admission, metrics, workspace = Admission(1, 0), Metrics(), Workspace(tmp_path)
    workspace.open()
    model = RenderModel.__new__(RenderModel)  # without a Triton around it
    model._settings, model._admission, model._workspace = StreamSettings(), admission, workspace
    model._metrics, model._models = cast(ModelMetrics, metrics), cast(BlsInferenceClient, FakeInference())
    model._render = partial(render)
    still, speech = write_still(tmp_path / "face.png"), write_wav(tmp_path / "speech.wav", tone(0.4))
    request = Request(admission, metrics, workspace.root, {"face_file": still, "audio_file": speech})
    try:
        await model._serve(cast(StreamRequest, request))
    finally:
        workspace.close()
    assert request.noted["frames"] == 10
    assert {"speech", "encode"} <= set(request.noted["stages"])
    assert request.noted["files"] == []
