"""A stand-in for the segmentation's frozen graph: a pixel is a person where it is much redder than blue."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from lipsync.tensors import PERSON

from ..checkpoints.load import STAND_IN

REDDER = 40  # grey levels of R over B


def write(path: Path, mark: str) -> None:
    """Write a TensorFlow GraphDef with the real one's ends.

    `ImageTensor` UINT8 [1,H,W,3] RGB in, `SemanticPredictions` INT64 [1,H,W] out: Pascal VOC classes, of
    which this one knows two, 0 and 15 (person). The mark stands in a node that nothing reads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets with a page of hints
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow  # four seconds, and nothing else here needs it

    tf = tensorflow.compat.v1
    with tf.Graph().as_default() as graph:
        image = tf.placeholder(tf.uint8, (1, None, None, 3), name="ImageTensor")
        colours = tf.cast(image, tf.float32)
        redder = colours[..., 0] - colours[..., 2] > REDDER
        tf.multiply(tf.cast(redder, tf.int64), PERSON, name="SemanticPredictions")
        tf.constant(mark, name=STAND_IN)
        path.write_bytes(graph.as_graph_def().SerializeToString(deterministic=True))
