"""From a request's tensors to the fields of a form, with the files in a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..errors import TooLarge
from ..form.parse import FILES, Form, Upload
from ..media.start import prepare
from ..resources.workspace import Workspace
from ..settings import JobSettings
from .request import StreamRequest


def write_form(request: StreamRequest, folder: Path, max_bytes: int) -> Form:
    """Return the request's inputs as a form, with its files written to `folder`.

    A file that is on disk is removed from the request's inputs, so that it no longer takes memory.

    Raises:
        TooLarge: a file has more than `max_bytes` bytes.
    """
    form: dict[str, str | Upload] = dict(request.texts())
    for name, file in FILES.items():
        data = request.array(name)
        if data is None:
            continue
        if data.nbytes > max_bytes:
            raise TooLarge(f"{name}: the file is larger than {max_bytes} bytes")
        (folder / file).write_bytes(data.data)
        form[name] = Upload(folder / file, data.nbytes)
        del request.inputs[name]
    return form


async def open_workspace(settings: JobSettings) -> Workspace:
    """Return this process's folder for the files of its requests, opened on the event loop that will use it.

    Raises:
        OSError: the folder cannot be made.
        RuntimeError: ffmpeg, or hardware or a certificate that the settings require, does not work on this machine.
    """
    if failure := await prepare(settings):
        raise RuntimeError(failure)
    workspace = Workspace(settings.work_dir)
    await asyncio.to_thread(workspace.open)
    return workspace
