"""Another background behind the person in a still, by PixelLib itself.

PixelLib 0.7.1 asks for TensorFlow when it is imported, and its module for h5 models (`semantic.deeplab`) breaks
with every TensorFlow that exists for this Python. Its pb mode needs neither: they only load and run the graph,
and Triton does that here.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Protocol, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..inference.protocol import InferenceClient
from ..media.image import Picture
from ..options import EdgeMode
from ..request import RGB

T = TypeVar("T")

NET_SIDE = 513  # pixels; PixelLib brings the longer side to this, and the shorter one must not vanish
IMAGE = "ImageTensor:0"
PERSON_COLOR = 255  # in all three channels
SOFT_SIGMA = 0.005  # of the shorter side: the standard deviation of a soft edge
_NO_H5 = ("Deeplab_xcep_pascal", "Deeplab_xcep_ade20k")  # the nets of the h5 mode, by PixelLib's names


async def replace_with_color(image: Picture, color: RGB, folder: Path, models: InferenceClient) -> Picture:
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
    _check_aspect(image)
    session = TritonSession(models)
    return await _run_in_thread(_paint, image, color, folder, session, session=session)


def _check_aspect(picture: Picture) -> None:
    height, width = picture.shape[:2]
    if int(1.0 * NET_SIDE / max(width, height) * min(width, height)) < 1:
        raise InvalidField(FACE_FILE, f"too long and thin to change its background: at most {NET_SIDE}:1")


async def _run_in_thread(work: Callable[..., T], *args: object, session: TritonSession) -> T:
    # PixelLib waits for the model in its thread. Were that one of the loop's shared threads, enough jobs at once would
    # hold them all, and wait for ever: the call to the model needs one too.
    own = ThreadPoolExecutor(1, thread_name_prefix="background")
    painting = asyncio.wrap_future(own.submit(copy_context().run, work, *args))
    own.shutdown(wait=False)  # the thread ends with its work
    try:
        return await asyncio.shield(painting)
    finally:  # a thread cannot be cancelled, but what it waits for can
        await session.stop()
        await asyncio.gather(painting, return_exceptions=True)


async def person_mask(picture: Picture, models: InferenceClient) -> NDArray[np.bool_]:
    """Where PixelLib sees a person: bool [H,W]. Raises as `change`."""
    _check_aspect(picture)
    session = TritonSession(models)
    return await _run_in_thread(_mask, picture, session, session=session)


def alpha_matte(mask: NDArray[np.bool_], edge: EdgeMode) -> NDArray[np.uint8]:
    """How much of the person shows, UINT8 [H,W] up to 255; a soft edge is as wide as two hundredths of the picture."""
    hard = mask.astype(np.uint8) * np.uint8(255)
    if edge is EdgeMode.HARD:
        return hard
    sigma = max(0.8, min(mask.shape) * SOFT_SIGMA)
    # drawn in a little first, so that what shines through at the edge is the new background and not the old one
    inner = cv2.erode(hard, np.ones((3, 3), np.uint8), iterations=max(1, round(sigma)))
    return np.asarray(cv2.GaussianBlur(inner, (0, 0), sigma), np.uint8)


def composite(picture: Picture, shown: NDArray[np.uint8], behind: Picture) -> Picture:
    """The picture UINT8 [H,W,3] before another one of its size, as opaque as `shown` UINT8 [H,W] says."""
    share = shown[:, :, None].astype(np.uint16)
    mixed: Picture = ((picture * share + behind * (255 - share) + 127) // 255).astype(np.uint8)
    return mixed


def resize_to_cover(behind: Picture, width: int, height: int) -> Picture:
    """A picture brought to a size in its own proportions, what juts out cut off on both sides."""
    high, wide = behind.shape[:2]
    factor = max(width / wide, height / high)
    size = max(width, round(wide * factor)), max(height, round(high * factor))
    shrinking = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(behind, size, interpolation=shrinking)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width], np.uint8)


def solid_color(color: RGB, width: int, height: int) -> Picture:
    """A picture of one colour, BGR."""
    return np.full((height, width, 3), color[::-1], np.uint8)


class TritonSession:
    """Stands where PixelLib has a TensorFlow session: runs the graph, from a worker thread, by `Models.segment`."""

    def __init__(self, models: InferenceClient) -> None:
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
    sess: TritonSession

    def color_bg(self, image_path: str, colors: RGB, *, detect: str) -> Picture:
        """PixelLib's own: BGR in, BGR out, though it takes the colour as RGB."""

    def segmentAsPascalvoc(self, image_path: Picture, *, process_frame: bool) -> tuple[object, Picture]:  # noqa: N802
        """PixelLib's own: the raw labels, and each pixel's class as its Pascal VOC colour."""


def _mask(picture: Picture, session: TritonSession) -> NDArray[np.bool_]:
    altering = _alter_bg()
    altering.sess = session
    _, labels = altering.segmentAsPascalvoc(picture, process_frame=True)
    mask: NDArray[np.bool_] = (labels == PERSON_COLOR).all(axis=2)
    return mask


def _paint(picture: Picture, colour: RGB, folder: Path, session: TritonSession) -> Picture:
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
