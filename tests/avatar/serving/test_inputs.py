"""What the streaming models need of the machine before they are loaded."""

from pathlib import Path

import pytest

from avatar.serving.inputs import open_workspace
from avatar.settings import JobSettings
from tests.support.fake_ffmpeg import FakeFfmpeg


async def test_a_model_is_loaded_only_with_a_working_ffmpeg(fake: FakeFfmpeg, tmp_path: Path) -> None:
    settings = JobSettings(work_dir=tmp_path)
    fake.fail("unlinked")
    with pytest.raises(RuntimeError, match=r"cannot start: ffmpeg cannot be started \(.*shared libraries"):
        await open_workspace(settings)
    fake.work()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avatar.media.self_test.FAILURE_SECONDS", 0.0)
        workspace = await open_workspace(settings)
    workspace.close()
