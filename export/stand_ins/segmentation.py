"""A stand-in for the segmentation's frozen graph: a pixel is a person if it is much more red than blue."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from lipsync.tensors import PERSON

from ..checkpoints.load import STAND_IN

REDDER = 40  # gray levels of R above B


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
        colors = tf.cast(image, tf.float32)
        redder = colors[..., 0] - colors[..., 2] > REDDER
        tf.multiply(tf.cast(redder, tf.int64), PERSON, name="SemanticPredictions")
        tf.constant(mark, name=STAND_IN)
        path.write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))
