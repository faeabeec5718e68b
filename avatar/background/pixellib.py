"""Run PixelLib itself to find the person in an image, with Triton in the place of TensorFlow.

PixelLib 0.7.1 imports TensorFlow, and its module for h5 models (`semantic.deeplab`) fails with every TensorFlow that
exists for this Python. Its pb mode needs neither: it uses TensorFlow only to load and run the graph, and Triton does
that here.
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

from lipsync.arrays import Image, Labels
from lipsync.tensors import FACE_FILE

from ..errors import InvalidField
from ..inference.protocol import InferenceClient
from ..request import RGB
from .compositing import Mask

T = TypeVar("T")

NETWORK_SIDE = 513  # pixels; PixelLib scales the longer side to this, and the shorter one must keep at least one
IMAGE = "ImageTensor:0"
PERSON_COLOR = 255  # in all three channels
_H5_NETWORKS = ("Deeplab_xcep_pascal", "Deeplab_xcep_ade20k")  # the networks of the h5 mode, by PixelLib's names


async def replace_with_color(image: Image, color: RGB, folder: Path, models: InferenceClient) -> Image:
    """Paint everything but the person.

    Args:
        image: UINT8 [H,W,3] BGR.
        color: the new background, true RGB.
        folder: for PixelLib's input, which it only reads from a file; the file is removed afterwards.

    Returns:
        UINT8 [H,W,3] BGR; of one color if there is no person.

    Raises:
        InvalidField: the ratio of the image's sides is too large for PixelLib.
        Unavailable: as `InferenceClient`.
    """
    _check_aspect(image)
    session = TritonSession(models)
    return await _run_in_thread(_paint, image, color, folder, session, session=session)


async def person_mask(image: Image, models: InferenceClient) -> Mask:
    """Return where PixelLib finds a person: bool [H,W]. Raises as `replace_with_color`."""
    _check_aspect(image)
    session = TritonSession(models)
    return await _run_in_thread(_mask, image, session, session=session)


class TritonSession:
    """Takes the place of PixelLib's TensorFlow session: runs the graph by `InferenceClient.segment`.

    PixelLib calls `run` in a worker thread; the call to the model runs in the event loop.
    """

    def __init__(self, models: InferenceClient) -> None:
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._stopped = False

    def run(self, output: str, feed_dict: Mapping[str, Sequence[Image]]) -> Labels:
        """Return the labels INT32 [1,H,W] of the one image UINT8 [H,W,3] RGB that is fed."""
        (image,) = feed_dict[IMAGE]
        return asyncio.run_coroutine_threadsafe(self._segment(image), self._loop).result()[None]

    async def stop(self) -> None:
        """Cancel the call in flight, and any that would follow."""
        self._stopped = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _segment(self, image: Image) -> Labels:
        self._task = asyncio.current_task()
        if self._stopped:
            raise asyncio.CancelledError
        return await self._models.segment(image)


def _check_aspect(image: Image) -> None:
    height, width = image.shape[:2]
    if int(1.0 * NETWORK_SIDE / max(width, height) * min(width, height)) < 1:
        reason = f"{width}x{height} is too long and narrow to replace its background; at most {NETWORK_SIDE}:1"
        raise InvalidField(FACE_FILE, reason)


async def _run_in_thread(work: Callable[..., T], *args: object, session: TritonSession) -> T:
    # PixelLib waits for the model in its thread. If that were one of the loop's shared threads, many jobs together
    # would occupy all of them and wait forever: the call to the model needs one too.
    executor = ThreadPoolExecutor(1, thread_name_prefix="background")
    painting = asyncio.wrap_future(executor.submit(copy_context().run, work, *args))
    executor.shutdown(wait=False)  # the thread ends with its work
    try:
        return await asyncio.shield(painting)
    finally:  # a thread cannot be cancelled, but the call that it waits for can
        await session.stop()
        await asyncio.gather(painting, return_exceptions=True)


class _AlterBg(Protocol):
    sess: TritonSession

    def color_bg(self, image_path: str, colors: RGB, *, detect: str) -> Image:
        """PixelLib's own: reads and returns BGR, but takes the color as RGB."""

    def segmentAsPascalvoc(self, image_path: Image, *, process_frame: bool) -> tuple[object, Image]:  # noqa: N802
        """PixelLib's own: returns the raw labels, and each pixel's class as its Pascal VOC color."""


def _mask(image: Image, session: TritonSession) -> Mask:
    alter_bg = _alter_bg()
    alter_bg.sess = session
    _, labels = alter_bg.segmentAsPascalvoc(image, process_frame=True)
    mask: Mask = (labels == PERSON_COLOR).all(axis=2)
    return mask


def _paint(image: Image, color: RGB, folder: Path, session: TritonSession) -> Image:
    path = folder / "background.png"
    try:
        if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"cannot write {path}")
        alter_bg = _alter_bg()
        alter_bg.sess = session
        return alter_bg.color_bg(str(path), color, detect="person")
    finally:
        path.unlink(missing_ok=True)


_modules: dict[str, ModuleType] = {}
_loading = Lock()


def _alter_bg() -> _AlterBg:
    with _loading:
        if not _modules:
            tensorflow, h5 = ModuleType("tensorflow"), ModuleType("pixellib.semantic.deeplab")
            for network in _H5_NETWORKS:
                setattr(h5, network, type(network, (), {}))
            substitutes = {"tensorflow": tensorflow, h5.__name__: h5}
            substitutes["pixellib.semantic"] = _load("pixellib.semantic", substitutes)
            _modules["tune_bg"] = _load("pixellib.tune_bg", substitutes)
    return cast(_AlterBg, _modules["tune_bg"].alter_bg(model_type="pb"))


def _load(name: str, substitutes: Mapping[str, ModuleType]) -> ModuleType:
    """Return a private copy of a module, in which an import of a name in `substitutes` gives that module.

    No substitute enters `sys.modules`: other code of the process, in any thread, imports the real modules.
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
        return substitutes.get(full) or builtins.__import__(wanted, globals, locals, fromlist, level)

    spec = importlib.util.find_spec(name)
    if not spec or not spec.loader:
        raise ImportError(f"{name} is not installed")
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": import_}
    spec.loader.exec_module(module)
    return module
