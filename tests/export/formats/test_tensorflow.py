from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.build.selection import export_segmentation
from export.checkpoints.provenance import Provenance
from export.errors import ExportError
from export.formats import onnx_model
from lipsync import tensors

CROP = 129  # the size to which the test's DeepLab pads images; the real one pads to 513

pytestmark = pytest.mark.xdist_group("tensorflow")  # on one worker: its import takes four seconds


class DeepLab:
    """A small graph with the steps of the frozen DeepLab graphs and random weights.

    Pad to a square, strided, dilated and depthwise convolutions, pooling over the whole image,
    bilinear resizing with aligned corners, the best class, cut back to the image's size.
    """

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self.noise = np.random.RandomState(3)

    def __call__(self, image: Any) -> Any:
        tf = self.tf
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        fits = tf.Assert(tf.less_equal(tf.maximum(height, width), CROP), ["the image is too large"])
        with tf.control_dependencies([fits]):
            padding = [[0, 0], [0, CROP - height], [0, CROP - width], [0, 0]]
            square = tf.pad(tf.cast(image, tf.float32) / 127.5 - 1, padding)
        square.set_shape([1, CROP, CROP, 3])
        early = self.conv(square, 12, stride=2)
        deep = self.conv(early, 24, stride=2)
        deep = self.conv(self.depthwise(deep, 2), 24, kernel=1) + self.conv(deep, 24, dilation=4)
        whole = self.conv(tf.reduce_mean(deep, [1, 2], keepdims=True), 6, kernel=1)
        deep = tf.concat([deep, self.resize(whole, deep.shape[1:3])], 3)
        fine = tf.concat([early, self.resize(deep, early.shape[1:3])], 3)
        classes = self.resize(self.conv(fine, 21, kernel=1), [CROP, CROP])
        labels = tf.slice(tf.argmax(classes, 3), [0, 0, 0], tf.stack([1, height, width]))
        nearest = tf.image.resize_nearest_neighbor
        sized = nearest(tf.cast(labels[..., None], tf.int32), tf.stack([height, width]), align_corners=True)
        return tf.cast(tf.squeeze(sized, 3), tf.int64)

    def weights(self, *shape: int) -> Any:
        fan_in = int(np.prod(shape[:-1]))
        return self.tf.constant((self.noise.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32))

    def conv(self, x: Any, channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> Any:
        weights = self.weights(kernel, kernel, int(x.shape[3]), channels)
        dilations = [1, dilation, dilation, 1]
        return self.tf.nn.relu(self.tf.nn.conv2d(x, weights, [1, stride, stride, 1], "SAME", dilations=dilations))

    def depthwise(self, x: Any, dilation: int) -> Any:
        weights = self.weights(3, 3, int(x.shape[3]), 1)
        return self.tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], "SAME", dilations=[dilation, dilation])

    def resize(self, x: Any, size: Any) -> Any:
        return self.tf.image.resize_bilinear(x, size, align_corners=True)


def freeze(path: Path, labels: Callable[[Any, Any], Any]) -> Any:
    """Write the frozen graph of `labels(tensorflow, image)` and return a session that runs it."""
    import tensorflow.compat.v1 as tf

    graph = tf.Graph()
    with graph.as_default():
        image = tf.placeholder(tf.uint8, [1, None, None, 3], name="ImageTensor")
        tf.identity(labels(tf, image), name="SemanticPredictions")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return tf.Session(graph=graph)


def reddish(tf: Any, image: Any) -> Any:
    red, blue = tf.cast(image[..., 0], tf.int32), tf.cast(image[..., 2], tf.int32)
    return 15 * tf.cast(red - blue > 40, tf.int64)


def random_image(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack((x * 255 // width, y * 255 // height, (x + y) % 256), axis=2).astype(np.uint8)


def test_the_export_labels_images_of_any_size_like_tensorflow(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "segmentation" / "1" / "model.onnx"
    with freeze(tmp_path / "deeplab.pb", lambda tf, image: DeepLab(tf)(image)) as session:
        export_segmentation(tmp_path / "deeplab.pb", path, provenance)
        exported = onnx_model.session(path)
        for size in ((CROP, CROP), (CROP, 60), (33, 128), (20, 20)):
            image = random_image(*size)
            (labels,) = onnx_model.run(exported, tensors.SEGMENTATION, [image])
            expected = session.run("SemanticPredictions:0", {"ImageTensor:0": image[None]})[0]
            assert labels.dtype == np.int32
            assert labels.shape == size
            assert len(np.unique(expected)) > 3, "an image of one label compares nothing"
            assert np.mean(labels != expected) <= 0.002


def test_the_export_has_the_tensors_of_the_table_and_records_its_checkpoint(
    tmp_path: Path, provenance: Provenance
) -> None:
    freeze(tmp_path / "reddish.pb", reddish).close()
    export_segmentation(tmp_path / "reddish.pb", tmp_path / "model.onnx", provenance)
    session = onnx_model.session(tmp_path / "model.onnx")
    ((image,), (labels,)) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert [size for size in image.shape if isinstance(size, int)] == [3]
    assert (labels.name, labels.type, len(labels.shape)) == ("labels", "tensor(int32)", 2)
    assert session.get_modelmeta().custom_metadata_map["checkpoint_sha256"] == provenance.sha256
    proto = onnx.load(tmp_path / "model.onnx")
    assert max(entry.version for entry in proto.opset_import) <= 21
    assert proto.ir_version <= 10


def test_labels_that_differ_from_tensorflows_fail_the_export(tmp_path: Path, provenance: Provenance) -> None:
    def dice(tf: Any, image: Any) -> Any:
        return tf.cast(tf.random.uniform(tf.shape(image)[:3], 0, 20), tf.int64)

    freeze(tmp_path / "dice.pb", dice).close()
    with pytest.raises(
        ExportError, match=r"^segmentation: `labels` differ from TensorFlow's in \d+\.\d+% of the pixels"
    ):
        export_segmentation(tmp_path / "dice.pb", tmp_path / "out" / "model.onnx", provenance)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><title>404</title>", b"\x0a\xff\xff\x03abc", b""])
def test_a_file_that_is_no_frozen_graph_is_rejected_by_name(
    tmp_path: Path, provenance: Provenance, content: bytes
) -> None:
    junk = tmp_path / "xception_pascalvoc.pb"
    junk.write_bytes(content)
    with pytest.raises(ExportError, match=r"xception_pascalvoc\.pb: "):
        export_segmentation(junk, tmp_path / "model.onnx", provenance)
    assert not (tmp_path / "model.onnx").exists()


def test_tensorflow_prints_nothing_when_the_export_works(
    tmp_path: Path, provenance: Provenance, capfd: pytest.CaptureFixture[str]
) -> None:
    freeze(tmp_path / "reddish.pb", reddish).close()
    capfd.readouterr()
    export_segmentation(tmp_path / "reddish.pb", tmp_path / "model.onnx", provenance)
    assert capfd.readouterr().err == ""
