"""A stand-in for the segmentation's frozen graph: it labels the head and the shoulders around patches of skin.

The graph works on cells of 4×4 pixels. Where a patch of skin has the size of a face, it assumes a head around it, twice
as large, and shoulders below, in proportion to the face. Inside that outline, a cell belongs to the person unless it
has the color of the background next to the outline. Max-pooling closes holes, and everything below a shoulder
belongs to the person.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from lipsync.tensors import PERSON

from ..checkpoints.load import STAND_IN
from .s3fd import SKIN

CELL = 4  # pixels; all lengths below are in cells
SKIN_SHARE = 0.5  # of a cell's pixels that makes it a cell of skin
RADII = (3, 5, 8, 12, 18, 27)  # of the circles that are looked for in the skin; a face contains at least the smallest
# Around the center of a circle, in radii of it: how far the outline goes up, down, and to each side
HEAD = (4.0, 2.0, 2.9)
SKULL = (2.0, 1.3, 1.4)  # the part of the head that is never taken for background
NECK = 0.9  # to each side, down to the lower border
SHOULDERS = ((2.6, 2.2), (3.8, 3.1), (5.2, 4.0))  # how far to each side, from how far below the center on
TALLEST = 512  # how far a body goes down
NEIGHBORHOODS = (12, 40)  # over which the color of the background is averaged, twice
SAME_COLOR = 36.0  # gray levels, the largest difference of R, G and B from the background's
KNOWN = 0.002  # share of background in a neighborhood that makes its color known

Node = Any  # a tensor of TensorFlow's graph, FP32 [1,h,w,c]
Mask = Node  # of one channel, with the values 0 and 1


def write(path: Path, mark: str) -> None:
    """Write a TensorFlow GraphDef with the inputs and outputs of the published one.

    `ImageTensor` UINT8 [1,H,W,3] RGB in, `SemanticPredictions` INT64 [1,H,W] out: Pascal VOC classes, of
    which this graph has two, 0 and 15 (person). The mark is in a node that no other node uses.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # otherwise TensorFlow prints a page of hints
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow  # takes four seconds, and only this stand-in needs it

    tf = tensorflow.compat.v1
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.uint8, (1, None, None, 3), name="ImageTensor")
        person = _Person(tf).labels(tf.cast(image, tf.float32))
        tf.multiply(tf.cast(person, tf.int64), PERSON, name="SemanticPredictions")
        tf.constant(mark, name=STAND_IN)
        path.write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))


class _Person:
    """Builds the graph's nodes."""

    def __init__(self, tf: ModuleType) -> None:
        self._tf = tf

    def labels(self, image: Node) -> Node:
        """Return bool [1,H,W]: the person in an image FP32 [1,H,W,3]."""
        tf = self._tf
        shape = tf.shape(image)
        cells = self._cells(image)
        skin = self._skin(image)
        outline, sure, face = self._outlines(skin)
        person = tf.maximum(sure, outline * self._unlike_background(cells, outline))
        person = self._shrink(self._grow(person, 3), 3)  # close gaps
        person = tf.maximum(sure, self._grow(self._shrink(person, 2), 2))  # remove specks
        # everything from the lowest face downwards
        below = 1 - self._dilate(tf.reduce_max(face, axis=2, keepdims=True), up=TALLEST)
        person = tf.maximum(person, outline * self._dilate(person * below, down=TALLEST))
        smooth = self._blur(self._blur(person, 1), 1)
        size = tf.shape(smooth)[1:3] * CELL
        large = tf.raw_ops.ResizeBilinear(images=smooth, size=size, half_pixel_centers=True)
        return large[:, : shape[1], : shape[2], 0] > 0.5

    def _cells(self, pixels: Node) -> Node:
        return self._tf.nn.avg_pool2d(pixels, CELL, CELL, "SAME")

    def _skin(self, image: Node) -> Mask:
        """Return the cells whose pixels pass the detector's tests for skin, without holes of up to five cells."""
        tf = self._tf
        passed = [
            tf.clip_by_value((sum(w * image[..., c] for c, w in enumerate(weights)) - start) / (end - start), 0.0, 1.0)
            for weights, start, end in SKIN
        ]
        skin = tf.nn.relu(reduce(tf.add, passed) - (len(SKIN) - 1))
        cells = tf.cast(self._cells(skin[..., None]) > SKIN_SHARE, tf.float32)
        return self._shrink(self._grow(cells, 2), 2)

    def _outlines(self, skin: Mask) -> tuple[Mask, Mask, Mask]:
        """Return where a person may be, where one certainly is, and the faces."""
        tf = self._tf
        heads, skulls, necks, shoulders, faces = [], [], [], [], []
        for radius in RADII:
            center = self._shrink(skin, radius)
            heads.append(self._rounded(self._around(center, radius, HEAD), radius))
            skulls.append(self._rounded(self._around(center, radius, SKULL), radius))
            necks.append(self._dilate(center, side=math.floor(NECK * radius)))
            faces.append(self._grow(center, radius))
            for side, start in SHOULDERS:
                wide = self._dilate(center, side=math.floor(side * radius))
                shoulders.append(self._lowered(wide, math.floor(start * radius)))
        head, skull, neck, shoulder, face = (
            reduce(tf.maximum, each) for each in (heads, skulls, necks, shoulders, faces)
        )
        body = self._rounded(self._dilate(shoulder, down=TALLEST), 8)
        sure = reduce(tf.maximum, (face, skull, self._dilate(neck, down=TALLEST)))
        return reduce(tf.maximum, (head, body, sure)), sure, face

    def _around(self, center: Mask, radius: int, reach: Sequence[float]) -> Mask:
        up, down, side = (math.floor(each * radius) for each in reach)
        return self._dilate(center, up, down, side)

    def _unlike_background(self, cells: Node, outline: Mask) -> Mask:
        """Return the cells whose color differs from the one around the outline, near and far."""
        tf = self._tf
        outside = 1 - outline
        different = []
        for reach in NEIGHBORHOODS:
            share, color = (self._blur(self._blur(each, reach), reach) for each in (outside, cells * outside))
            distance = tf.reduce_max(tf.abs(cells - color / (share + 1e-4)), axis=3, keepdims=True)
            different.append(tf.cast(tf.logical_or(distance > SAME_COLOR, share < KNOWN), tf.float32))
        return reduce(tf.multiply, different)

    def _dilate(self, mask: Mask, up: int = 0, down: int = 0, side: int = 0) -> Mask:
        """Extend a mask up, down, and to both sides."""
        tf = self._tf
        if up or down:
            padded = tf.pad(mask, ((0, 0), (down, up), (0, 0), (0, 0)))
            mask = tf.nn.max_pool2d(padded, (up + down + 1, 1), 1, "VALID")
        if side:
            padded = tf.pad(mask, ((0, 0), (0, 0), (side, side), (0, 0)))
            mask = tf.nn.max_pool2d(padded, (1, 2 * side + 1), 1, "VALID")
        return mask

    def _grow(self, mask: Mask, cells: int) -> Mask:
        return self._dilate(mask, cells, cells, cells)

    def _shrink(self, mask: Mask, cells: int) -> Mask:
        """Undo `_grow`; what is beyond the image's border counts as part of the mask."""
        return 1 - self._grow(1 - mask, cells)

    def _lowered(self, mask: Mask, cells: int) -> Mask:
        return self._tf.pad(mask, ((0, 0), (cells, 0), (0, 0), (0, 0)))[:, :-cells]

    def _rounded(self, mask: Mask, radius: int) -> Mask:
        reach = radius // 2 + 1
        return self._tf.cast(self._blur(self._blur(mask, reach), reach) > 0.5, self._tf.float32)

    def _blur(self, values: Node, reach: int) -> Node:
        """Average over a square; beyond the border there is nothing to average."""
        side = 2 * reach + 1
        rows = self._tf.nn.avg_pool2d(values, (side, 1), 1, "SAME")
        return self._tf.nn.avg_pool2d(rows, (1, side), 1, "SAME")
