"""Another background behind the person in a still, by PixelLib itself.

PixelLib 0.7.1 asks for TensorFlow when it is imported, and its module for h5 models (`semantic.deeplab`) breaks
with every TensorFlow that exists for this Python. Its pb mode needs neither: they only load and run the graph,
and Triton does that here.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from . import intake
from .errors import InvalidField
from .models import Models
from .pictures import Picture
from .request import RGB

NET_SIDE = 513  # pixels; PixelLib brings the longer side to this, and the shorter one must not vanish
IMAGE = "ImageTensor:0"
_NO_H5 = ("Deeplab_xcep_pascal", "Deeplab_xcep_ade20k")  # the nets of the h5 mode, by PixelLib's names


async def change(picture: Picture, colour: RGB, folder: Path, models: Models) -> Picture:
    """Paint everything but the person.

    Args:
        picture: UINT8 [H,W,3] BGR.
        colour: the new background, true RGB.
        folder: for PixelLib's input, which it takes as a file only; the file is gone afterwards.

    Returns:
        UINT8 [H,W,3] BGR; of one colour where there is no person.

    Raises:
        InvalidField: the picture is too long and thin for PixelLib.
        Unavailable: as `Models`.
    """
    height, width = picture.shape[:2]
    if int(1.0 * NET_SIDE / max(width, height) * min(width, height)) < 1:
        raise InvalidField(intake.FACE, f"too long and thin to change its background: at most {NET_SIDE}:1")
    session = Session(models)
    # PixelLib waits for the model in its thread. Were that one of the loop's shared threads, enough jobs at once would
    # hold them all, and wait for ever: the call to the model needs one too.
    own = ThreadPoolExecutor(1, thread_name_prefix="background")
    painting = asyncio.wrap_future(own.submit(copy_context().run, _paint, picture, colour, folder, session))
    own.shutdown(wait=False)  # the thread ends with its work
    try:
        return await asyncio.shield(painting)
    finally:  # a thread cannot be cancelled, but what it waits for can
        await session.stop()
        await asyncio.gather(painting, return_exceptions=True)


class Session:
    """Stands where PixelLib has a TensorFlow session: runs the graph, from a worker thread, by `Models.segment`."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    def run(self, output: str, feed_dict: Mapping[str, Sequence[Picture]]) -> NDArray[np.int32]:
        """Labels INT32 [1,H,W] of the one picture UINT8 [H,W,3] RGB that is fed."""
        (image,) = feed_dict[IMAGE]
        return asyncio.run_coroutine_threadsafe(self._segment(image), self._loop).result()[None]

    async def stop(self) -> None:
        """Give up the call that is under way, or that would still come."""
        self._stopped = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _segment(self, image: Picture) -> NDArray[np.int32]:
        self._task = asyncio.current_task()
        if self._stopped:
            raise asyncio.CancelledError
        return await self._models.segment(image)


class _AlterBg(Protocol):
    sess: Session

    def color_bg(self, image_path: str, colors: RGB, *, detect: str) -> Picture:
        """PixelLib's own: BGR in, BGR out, though it takes the colour as RGB."""


def _paint(picture: Picture, colour: RGB, folder: Path, session: Session) -> Picture:
    path = folder / "background.png"
    try:
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"{path} cannot be written")
        altering = _alter_bg()
        altering.sess = session
        return altering.color_bg(str(path), colour, detect="person")
    finally:
        path.unlink(missing_ok=True)


_modules: dict[str, ModuleType] = {}
_loading = Lock()


def _alter_bg() -> _AlterBg:
    with _loading:
        if not _modules:
            tensorflow, h5 = ModuleType("tensorflow"), ModuleType("pixellib.semantic.deeplab")
            for net in _NO_H5:
                setattr(h5, net, type(net, (), {}))
            stand_ins = {"tensorflow": tensorflow, h5.__name__: h5}
            stand_ins["pixellib.semantic"] = _load("pixellib.semantic", stand_ins)
            _modules["tune_bg"] = _load("pixellib.tune_bg", stand_ins)
    return cast(_AlterBg, _modules["tune_bg"].alter_bg(model_type="pb"))


def _load(name: str, stand_ins: Mapping[str, ModuleType]) -> ModuleType:
    """A private copy of a module, to which `stand_ins` import as the modules of these names.

    Nothing of it enters `sys.modules`: the process's other code, in whatever thread, imports the real ones.
    """

    def import_(
        wanted: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        package = str((globals or {}).get("__package__"))
        full = importlib.util.resolve_name("." * level + wanted, package) if level else wanted
        return stand_ins.get(full) or builtins.__import__(wanted, globals, locals, fromlist, level)

    spec = importlib.util.find_spec(name)
    if not spec or not spec.loader:
        raise ImportError(f"{name} is not installed")
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_}
    spec.loader.exec_module(module)
    return module
