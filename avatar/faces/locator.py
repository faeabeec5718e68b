"""Where the face is in every frame of the result."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from lipsync.boxes import Smoother, pad, smooth
from lipsync.face_detection import to_pixels
from lipsync.tensors import S3FD_BATCH

from ..context import JobContext
from ..errors import AvatarError, FaceNotFound, InvalidField
from ..media.image import Picture, Still
from ..media.video import Video, read_frames
from ..options import Detection, ExtendMode, NoFace, Sides
from ..resources.avatar_cache import FaceBoxCache as Memory
from ..streams import prefetch, map_concurrent
from . import detection
from .detection import Detections
from .selection import FaceSelector
from .tracking import FaceTracker, TrackedFrame, detect_face

Box = NDArray[np.int32]  # [4]
Seen = tuple[Picture, Box | None]  # one frame, BGR [H,W,3], and its box; None where there is no face and it may be so

# What one detection call holds: four frames of 640×480, a single one from there on. More at once would only cost
# the server memory (see S3FD_BATCH).
DETECTION_PIXELS = S3FD_BATCH * 640 * 480
AT_ONCE = 2  # detection calls: one is computed while the next one's frames travel
# A video that fits is kept decoded instead of being decoded anew every time round: a video of one frame under a
# minute of speech would start ffmpeg 1500 times.
KEPT_BYTES = 64 << 20
# Frames that are held to be shown in reverse order. Each such lot costs a run through the video up to there.
REVERSED_BYTES = 256 << 20
# Before a longer clip is worked through, some of its frames are looked at: one in so many, and so many at most.
SAMPLED, SAMPLES = 50, 24


class Tracker:
    """Faces of one avatar, looked for, chosen, padded and smoothed as the job's options say.

    Attributes:
        without_face: frames of the result, of those given so far, in which no face was found.
    """

    def __init__(self, avatar: Still | Video, total: int, job: JobContext, memory: Memory | None = None) -> None:
        """`total`: frames of the result; `memory`: what is known of this avatar's faces, and what is met is kept in."""
        self.without_face = 0
        self._avatar, self._total, self._job = avatar, total, job
        self._chooser, self._memory = FaceSelector(job.options.face), memory or Memory()
        self._known: dict[int, Detections] = {}  # frames that were looked at before their turn

    def frames(self) -> AsyncGenerator[Seen]:
        """Every frame of the result, `total` in all, with its box.

        Raises:
            FaceNotFound: one has no face, and every one has to.
            InvalidField: an option does not go with what the pictures show.
        """
        return self._still(self._avatar) if isinstance(self._avatar, Still) else self._moving(self._avatar)

    async def _still(self, still: Still) -> AsyncGenerator[Seen]:
        """Looked at once: the same picture and box again and again."""
        box = self._given_box()
        if box is None:
            face = await self._face_of(still.picture)
            box = self._may(face) if self._job.options.no_face is NoFace.KEEP else self._must(face, 0)
        self.without_face = 0 if box is not None else self._total
        for _ in range(self._total):
            yield still.picture, box

    async def _face_of(self, picture: Picture) -> Box | None:
        """The corners of the face of a still."""
        known = await self._memory.get(1)
        if known is not None:
            return known[0]
        if self._job.options.detection is Detection.EXACT:
            box = self._chooser.select(*(await detection.detect_batch(picture[None], self._job))[0])
        else:
            box = await detect_face(picture, self._chooser, self._job)
        face = None if box is None else to_pixels(box)
        await self._memory.put([face], complete=True)
        return face

    async def _moving(self, film: Video) -> AsyncGenerator[Seen]:
        """A video's frames, cut where it is longer than the result, and shown again where it is shorter.

        Faces are looked for, and boxes smoothed, over the frames that are used, and once only: of the first time
        round the boxes are remembered, and the frames where they are few.
        """
        boxes: list[Box | None] = []
        found: list[bool] = []
        kept: list[Picture] = []
        room = KEPT_BYTES // (film.width * film.height * 3)
        if not film.count < self._total or film.count > room:  # shown once, or too many; by its clock, which may lie
            room = 0
        async with aclosing(self._first_time_round(film, found)) as first:
            async for picture, box in first:
                self.without_face += not found[len(boxes)]
                boxes.append(box)
                if len(boxes) <= room:
                    kept.append(picture)
                yield picture, box
        if len(boxes) > room:
            kept.clear()
        async with aclosing(self._again(film, boxes, kept)) as again:
            async for number, picture in again:
                self.without_face += not found[number]
                yield picture, boxes[number]

    async def _again(
        self, film: Video, boxes: Sequence[object], kept: Sequence[Picture]
    ) -> AsyncGenerator[tuple[int, Picture]]:
        """What follows when all frames have been shown once, each by its number, until there are enough."""
        left, count = self._total - len(boxes), len(boxes)
        how = self._job.options.extend if count > 1 else ExtendMode.HOLD
        if left and how is ExtendMode.HOLD:
            last = kept[-1] if kept else await self._frame(film, count - 1)
            for _ in range(left):
                yield count - 1, last
            return
        forward = how is ExtendMode.LOOP
        while left > 0:
            # back and forth, the frame at which it turns is shown once
            numbers = range(count) if how is ExtendMode.LOOP else range(1, count) if forward else range(count - 2, -1, -1)
            numbers = numbers[:left]
            async with aclosing(self._shown(film, numbers, kept)) as shown:
                async for seen in shown:
                    yield seen
            left -= len(numbers)
            forward = how is ExtendMode.LOOP or not forward

    async def _shown(self, film: Video, numbers: range, kept: Sequence[Picture]) -> AsyncGenerator[tuple[int, Picture]]:
        """Frames by their numbers, which go up or down by one."""
        if kept:
            for number in numbers:
                yield number, kept[number]
            return
        lot = len(numbers) if numbers.step > 0 else max(1, REVERSED_BYTES // (film.width * film.height * 3))
        for begin in range(0, len(numbers), lot):
            some = numbers[begin : begin + lot]
            low = min(some[0], some[-1])
            pieces = read_frames(film, self._piece(film), self._job, first=low, most=len(some))
            given = 0
            held: list[Picture] = []
            async with aclosing(pieces):
                async for frames in pieces:
                    for frame in frames:
                        if some.step > 0:
                            yield low + given, frame
                        else:
                            held.append(frame)
                        given += 1
            if given < len(some):
                raise AvatarError("a video had fewer frames the second time")
            while held:
                yield low + len(held) - 1, held.pop()

    async def _first_time_round(self, film: Video, found: list[bool]) -> AsyncGenerator[Seen]:
        """Frames with their boxes. `found` grows ahead of them: whether a face was found, or given."""
        options = self._job.options
        if (box := self._given_box()) is not None:
            async with aclosing(read_frames(film, self._piece(film), self._job, most=self._total)) as pieces:
                async for frames in pieces:
                    found += [True] * len(frames)
                    for frame in frames:
                        yield frame, box
        elif options.no_face is NoFace.KEEP:
            async with aclosing(self._surveyed(film, found)) as surveyed:
                async for seen in surveyed:
                    yield seen
        else:
            smoother, waiting = Smoother(), deque[Picture]()
            async with aclosing(self._found(film)) as faces:
                async for frame, face in faces:
                    chosen = np.stack([self._must(face, len(found))])
                    found.append(True)
                    waiting.append(frame)
                    for smoothed in smoother.feed(chosen) if options.smooth else chosen:
                        yield waiting.popleft(), smoothed
            for smoothed in smoother.finish() if options.smooth else ():
                yield waiting.popleft(), smoothed

    async def _surveyed(self, film: Video, found: list[bool]) -> AsyncGenerator[Seen]:
        """Every frame is looked at before the first one is given: a gap is bridged by what comes behind it."""
        boxes: list[Box | None] = []
        async with aclosing(self._found(film)) as faces:
            async for _, face in faces:
                box = self._may(face)
                boxes.append(box)
                found.append(box is not None)
        placed = iter(fill_gaps(boxes, int(film.fps), smoothed=self._job.options.smooth))
        async with aclosing(read_frames(film, self._piece(film), self._job, most=len(boxes))) as pieces:
            async for frames in pieces:
                for frame in frames:
                    yield frame, next(placed)

    async def _found(self, film: Video) -> AsyncGenerator[tuple[Picture, Box | None]]:
        """The frames that are used, each with the corners of the face that is meant, or None without one."""
        known = await self._memory.get(self._total)
        if known is not None:
            pieces = read_frames(film, self._piece(film), self._job, most=min(self._total, len(known)))
            numbers = iter(known)
            async with aclosing(pieces):
                async for frames in pieces:
                    for frame in frames:
                        yield frame, next(numbers)
            return
        if self._job.options.no_face is NoFace.FAIL:
            await self._sample(film)
        faces = self._detected(film) if self._job.options.detection is Detection.EXACT else self._followed(film)
        met: list[Box | None] = []
        async with aclosing(faces):
            async for frame, box in faces:
                met.append(None if box is None else to_pixels(box))
                yield frame, met[-1]
        await self._memory.put(met, complete=len(met) < self._total)

    async def _sample(self, film: Video) -> None:
        """Look at some frames all over a longer clip, so that one without a face need not be worked through first.

        Raises:
            FaceNotFound: with the first frame of the stretch without one.
        """
        used = min(film.count, self._total)
        if used < 2 * SAMPLED:
            return
        step = max(SAMPLED, -(-used // SAMPLES))
        pieces = read_frames(film, self._piece(film), self._job, most=-(-used // step), step=step)
        number = 0
        async with aclosing(map_concurrent(pieces, self._look, AT_ONCE)) as detected:
            async for faces in detected:
                for face in faces:
                    if self._job.options.detection is Detection.EXACT:
                        self._known[number] = face
                    if not detection.has_face(face):
                        raise FaceNotFound(await self._first_missing(film, number - step, number) / film.fps)
                    number += step

    async def _first_missing(self, film: Video, good: int, bad: int) -> int:
        """The first frame without a face between one that has one (or -1) and one that has none, by bisection."""
        good = max(good, -1)
        while bad - good > 1:
            middle = (good + bad) // 2
            (faces,) = await self._look((await self._frame(film, middle))[None])
            good, bad = (middle, bad) if detection.has_face(faces) else (good, middle)
        return bad

    async def _look(self, frames: NDArray[np.uint8]) -> list[Detections]:
        """Whether, and roughly where, frames [n,H,W,3] show faces."""
        if self._job.options.detection is Detection.EXACT:
            return await detection.detect_batch(frames, self._job)
        return [await detection.detect_full_frame(frame, self._job, detection.COARSE_PIXELS) for frame in frames]

    async def _frame(self, film: Video, number: int) -> Picture:
        async with aclosing(read_frames(film, 1, self._job, first=number, most=1)) as pieces:
            async for (frame,) in pieces:
                return frame  # type: ignore[no-any-return]
        raise AvatarError("a video had fewer frames the second time")

    async def _followed(self, film: Video) -> AsyncGenerator[TrackedFrame]:
        """The frames that are used, with the face as it is followed through them."""
        pieces = prefetch(read_frames(film, self._piece(film), self._job, most=self._total), AT_ONCE)
        async with aclosing(FaceTracker(self._chooser, self._job).track(pieces)) as followed:
            async for seen in followed:
                yield seen

    async def _detected(self, film: Video) -> AsyncGenerator[TrackedFrame]:
        """The frames that are used, with the face that is detected in each."""
        read = 0

        async def numbered() -> AsyncGenerator[tuple[int, NDArray[np.uint8]]]:
            nonlocal read
            async with aclosing(read_frames(film, self._piece(film), self._job, most=self._total)) as pieces:
                async for frames in pieces:
                    yield read, frames
                    read += len(frames)

        async def detect(piece: tuple[int, NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], list[Detections]]:
            first, frames = piece
            new = [n for n in range(len(frames)) if first + n not in self._known]
            faces = await detection.detect_batch(frames[new] if len(new) < len(frames) else frames, self._job)
            answers = iter(faces)
            return frames, [
                self._known.pop(first + n) if first + n in self._known else next(answers) for n in range(len(frames))
            ]

        async with aclosing(map_concurrent(numbered(), detect, AT_ONCE)) as detected:
            async for frames, faces in detected:
                for frame, face in zip(frames, faces, strict=True):
                    yield frame, self._chooser.select(*face)

    def _may(self, face: Box | None) -> Box | None:
        """The padded box of a face, or None where there is none."""
        if face is None:
            return None
        padded: Box = pad(face[None], self._avatar.width, self._avatar.height, self._job.options.pads)[0]
        return padded if (padded[:2] < padded[2:]).all() else None  # nothing of it may lie in the picture

    def _must(self, face: Box | None, number: int) -> Box:
        """The padded box of the face in frame `number`, which has to have one."""
        box = self._may(face)
        if box is None:
            raise FaceNotFound(number / self._avatar.fps)
        return box

    def _given_box(self) -> Box | None:
        sides: Sides | None = self._job.options.box
        if sides is None:
            return None
        top, bottom, left, right = sides
        width, height = self._avatar.width, self._avatar.height
        if bottom > height or right > width:
            raise InvalidField("box", f"it reaches outside the {width}x{height} picture")
        return np.array([left, top, right, bottom], np.int32)

    @staticmethod
    def _piece(film: Video) -> int:
        return min(S3FD_BATCH, max(1, DETECTION_PIXELS // (film.width * film.height)))


def fill_gaps(boxes: Sequence[Box | None], gap: int, *, smoothed: bool) -> list[Box | None]:
    """Boxes put between those before and behind, in gaps of at most so many frames; longer ones stay.

    Each stretch between the gaps that are left is smoothed by itself, as if it were a clip.
    """
    result: list[Box | None] = []
    stretch: list[Box] = []
    missing = 0

    def end() -> None:
        result.extend(smooth(np.stack(stretch)) if stretch and smoothed else stretch)
        stretch.clear()
        result.extend([None] * missing)

    for box in boxes:
        if box is None:
            missing += 1
            continue
        if missing and stretch and missing <= gap:
            stretch += [_between(stretch[-1], box, (n + 1) / (missing + 1)) for n in range(missing)]
        elif missing:
            end()
        missing = 0
        stretch.append(box)
    end()
    return result


def _between(before: Box, behind: Box, share: float) -> Box:
    between: Box = (before + (behind - before) * share).astype(np.int32)
    return between
