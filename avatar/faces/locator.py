"""Locate the face in every frame of the result: detect or track it, pad and smooth its box."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

import numpy as np

from lipsync.arrays import Box, Image
from lipsync.boxes import Smoother, pad
from lipsync.face_detection import to_pixels

from ..context import JobContext
from ..errors import FaceNotFound, InvalidField
from ..media.image import StillImage
from ..media.playback import FrameReader, KeptFrames, repeat
from ..media.threads import frames_per_turn
from ..media.video import Video
from ..options import Detection, NoFace
from ..resources.avatar_cache import FaceBoxCache
from ..streams import prefetch
from . import detection
from .cuts import is_cut
from .interpolation import fill_gaps
from .sampling import FaceSamples
from .selection import FaceSelector
from .tracking import FaceTracker, TrackedFrame, detect_face


class LocatedFrame(NamedTuple):
    """One frame of the result.

    Attributes:
        image: UINT8 [H,W,3] BGR.
        box: INT32 [4], padded and smoothed; None if the frame shows no face and is to stay unchanged.
        found: whether a face was detected in this frame, or its box given; False also if the box is interpolated.
    """

    image: Image
    box: Box | None
    found: bool


async def locate_faces(
    source: StillImage | Video, frame_count: int, job: JobContext, cache: FaceBoxCache | None = None
) -> AsyncGenerator[LocatedFrame]:
    """Yield all `frame_count` frames of the result, each with the box of the selected face.

    A video is cut if it is longer than the result, and repeated as `options.extend` says if it is shorter. Faces are
    detected once, in the frames that are used.

    Args:
        cache: what is known of this avatar's faces; new detections are put there.

    Raises:
        FaceNotFound: a frame has no face, and `options.no_face` is FAIL.
        InvalidField: `options.box` or `options.face` does not fit the image.
    """
    locator = FaceLocator(source, frame_count, job, cache or FaceBoxCache())
    if isinstance(source, StillImage):
        frame = await locator.locate_image(source.image)
        for _ in range(frame_count):
            yield frame
        return
    reader, kept = locator.reader(source), KeptFrames(source, frame_count)
    located: list[tuple[Box | None, bool]] = []
    async with aclosing(locator.first_pass(source)) as frames:
        async for frame in frames:
            located.append((frame.box, frame.found))
            kept.add(frame.image)
            yield frame
    async with aclosing(repeat(reader, len(located), frame_count, job.options.extend, kept.images)) as repeated:
        async for index, image in repeated:
            frame = LocatedFrame(image, *located[index])
            yield frame


class FaceLocator:
    """Locates the face of one avatar as the options of the job say.

    The face is detected in every frame or tracked (`options.detection`), or its box is given or cached; then its box is
    padded and smoothed.
    """

    def __init__(self, source: StillImage | Video, frame_count: int, job: JobContext, cache: FaceBoxCache) -> None:
        self._source, self._frame_count, self._job, self._cache = source, frame_count, job, cache
        self._selector = FaceSelector(job.options.face)
        self._samples: FaceSamples | None = None

    def reader(self, video: Video) -> FrameReader:
        """Return the reader of the frames of a video whose boxes are known."""
        return FrameReader(video, frames_per_turn(video.width, video.height), self._job.timer, self._job.log)

    async def locate_image(self, image: Image) -> LocatedFrame:
        """Locate the face in a still image UINT8 [H,W,3]. Raises as `locate_faces`."""
        box = self._given_box()
        if box is None:
            face = await self._detected_in_image(image)
            box = self._padded(face) if self._job.options.no_face is NoFace.KEEP else await self._required(face, 0)
        return LocatedFrame(image, box, box is not None)

    async def _detected_in_image(self, image: Image) -> Box | None:
        """Return the box of the selected face INT32 [4], from the cache or detected."""
        known = await self._cache.get(1)
        if known is not None:
            return known[0]
        if self._job.options.detection is Detection.EXACT:
            face = self._selector.select(*(await detection.detect_batch(image[None], self._job))[0])
        else:
            face = await detect_face(image, self._selector, self._job)
        box = None if face is None else to_pixels(face)
        await self._cache.put([box], complete=True)
        return box

    def first_pass(self, video: Video) -> AsyncGenerator[LocatedFrame]:
        """Yield the video's frames, at most as many as the result has. Raises as `locate_faces`."""
        box = self._given_box()
        if box is not None:
            return self._with_box(video, box)
        return self._two_pass(video) if self._job.options.no_face is NoFace.KEEP else self._one_pass(video)

    async def _with_box(self, video: Video, box: Box) -> AsyncGenerator[LocatedFrame]:
        async with aclosing(self._images(video, self._frame_count)) as images:
            async for image in images:
                yield LocatedFrame(image, box, found=True)

    async def _one_pass(self, video: Video) -> AsyncGenerator[LocatedFrame]:
        """Yield each frame as soon as its box is smoothed; every frame must show a face."""
        smooth, smoother = self._job.options.smooth, Smoother()
        waiting, count = deque[Image](), 0
        async with aclosing(self._faces(video)) as faces:
            async for image, face in faces:
                box = (await self._required(face, count))[None]
                count += 1
                waiting.append(image)
                for smoothed in smoother.feed(box) if smooth else box:
                    yield LocatedFrame(waiting.popleft(), smoothed, found=True)
        for smoothed in smoother.finish() if smooth else ():
            yield LocatedFrame(waiting.popleft(), smoothed, found=True)

    async def _two_pass(self, video: Video) -> AsyncGenerator[LocatedFrame]:
        """Detect in all frames, then read them again: a gap is filled from the frames before and after it."""
        boxes: list[Box | None] = []
        cuts, max_gap = set[int](), int(video.fps)
        previous: Image | None = None
        missing = max_gap + 1  # frames without a face up to here
        async with aclosing(self._faces(video)) as faces:
            async for image, face in faces:
                boxes.append(self._padded(face))
                is_missing = boxes[-1] is None
                # only in a gap that would be filled does it matter whether there is a cut
                in_gap = missing <= max_gap and (is_missing or missing > 0)
                if in_gap and previous is not None and await asyncio.to_thread(is_cut, previous, image):
                    cuts.add(len(boxes) - 1)
                missing = missing + 1 if is_missing else 0
                previous = image
        filled = fill_gaps(boxes, max_gap, smoothed=self._job.options.smooth, cuts=cuts)
        located = zip(filled, boxes, strict=True)
        async with aclosing(self._images(video, len(boxes))) as images:
            async for image in images:
                box, detected = next(located)
                yield LocatedFrame(image, box, detected is not None)

    async def _faces(self, video: Video) -> AsyncGenerator[tuple[Image, Box | None]]:
        """Yield each frame with the selected face's box INT32 [4], as detected or cached; None without a face."""
        cached = await self._cache.get(self._frame_count)
        if cached is not None:
            async with aclosing(self._cached(video, cached)) as frames:
                async for cached_frame in frames:
                    yield cached_frame
            return
        boxes: list[Box | None] = []
        async with aclosing(await self._detected(video)) as detected:
            async for image, face in detected:
                boxes.append(None if face is None else to_pixels(face))
                yield image, boxes[-1]
        await self._cache.put(boxes, complete=len(boxes) < self._frame_count)

    async def _cached(self, video: Video, cached: list[Box | None]) -> AsyncGenerator[tuple[Image, Box | None]]:
        boxes = iter(cached)
        async with aclosing(self._images(video, min(self._frame_count, len(cached)))) as images:
            async for image in images:
                yield image, next(boxes)

    async def _detected(self, video: Video) -> AsyncGenerator[TrackedFrame]:
        """Return the generator of frames with the face that is detected or tracked in each."""
        job, count = self._job, self._frame_count
        chunk_frames = detection.batch_frames(video.width, video.height, job.model_info.detector_net)
        reader = FrameReader(video, chunk_frames, job.timer, job.log)
        if job.options.no_face is NoFace.FAIL:
            self._samples = FaceSamples(reader, min(video.frame_count, count), job)
        if job.options.detection is Detection.EXACT:
            known = self._samples.known if self._samples else {}
            found = self._selected(detection.detect_every_frame(reader.read(max_frames=count), known, job))
        else:
            chunks = prefetch(reader.read(max_frames=count), detection.CONCURRENCY)
            found = FaceTracker(self._selector, job).track(chunks)
        return self._samples.check_during(found) if self._samples else found

    async def _selected(
        self, detected: AsyncGenerator[tuple[Image, detection.Detections]]
    ) -> AsyncGenerator[TrackedFrame]:
        async with aclosing(detected):
            async for image, detections in detected:
                yield image, self._selector.select(*detections)

    async def _images(self, video: Video, max_frames: int) -> AsyncGenerator[Image]:
        async with aclosing(self.reader(video).read(max_frames=max_frames)) as chunks:
            async for images in chunks:
                for image in images:
                    yield image

    def _padded(self, face: Box | None) -> Box | None:
        """Return the padded box, or None if there is no face or it is entirely outside the image."""
        if face is None:
            return None
        padded: Box = pad(face[None], self._source.width, self._source.height, self._job.options.pads)[0]
        return padded if (padded[:2] < padded[2:]).all() else None

    async def _required(self, face: Box | None, index: int) -> Box:
        """Return the padded box of frame `index`. Raises FaceNotFound if there is none."""
        box = self._padded(face)
        if box is None:
            if self._samples:  # they may find another frame: callers get the same error each time
                await self._samples.finished()
            raise FaceNotFound(index / self._source.fps)
        return box

    def _given_box(self) -> Box | None:
        """Return `options.box`, INT32 [4], if it is given. Raises InvalidField if it is not inside the image."""
        sides = self._job.options.box
        if sides is None:
            return None
        top, bottom, left, right = sides
        width, height = self._source.width, self._source.height
        if bottom > height or right > width:
            raise InvalidField("box", f"must lie inside the {width}x{height} image")
        return np.array([left, top, right, bottom], np.int32)
