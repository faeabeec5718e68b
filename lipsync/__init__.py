"""The arithmetic of a talking avatar: NumPy and OpenCV only, no files, no processes, no network.

Everything here takes arrays and gives arrays, so the same functions serve the Triton Python models,
the exporter's checks, the pipeline and the tests. `lipsync.tensors` is the one source of every
public tensor's name, type and shape.
"""

__version__ = "0.1.0"
