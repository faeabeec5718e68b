"""Memory of a GPU that another process can open, by the driver's own library: no CUDA package is needed."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lipsync.arrays import Array

from ..errors import BenchError

DRIVER = "libcuda.so.1"  # part of NVIDIA's driver
_HANDLE_BYTES = 64  # CU_IPC_HANDLE_SIZE


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_ubyte * _HANDLE_BYTES),)


class CudaMemory:
    """An allocation, to be used by the thread that made it.

    Args:
        size: bytes.
        device: number of the GPU.

    Raises:
        BenchError: there is no driver, no such GPU, or no memory left.
    """

    def __init__(self, size: int, device: int = 0) -> None:
        self.size, self.device = size, device
        self._cuda = _driver()
        self._context = ctypes.c_void_p()
        self._pointer = ctypes.c_uint64()
        number = ctypes.c_int()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(number), device)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), number)
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuMemAlloc_v2", ctypes.byref(self._pointer), ctypes.c_size_t(size))

    def handle(self) -> bytes:
        """Return the handle with which another process opens the memory."""
        handle = _Handle()
        self._call("cuIpcGetMemHandle", ctypes.byref(handle), self._pointer)
        return bytes(handle.reserved)

    def write(self, offset: int, array: Array) -> None:
        """Copy an array into the memory."""
        source = np.ascontiguousarray(array)
        place = ctypes.c_uint64(self._pointer.value + offset)
        self._call("cuMemcpyHtoD_v2", place, ctypes.c_void_p(source.ctypes.data), ctypes.c_size_t(source.nbytes))

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """Return a copy of some bytes."""
        copy = np.empty(size, np.uint8)
        place = ctypes.c_uint64(self._pointer.value + offset)
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(copy.ctypes.data), place, ctypes.c_size_t(size))
        return copy

    def close(self) -> None:
        """Free the memory."""
        self._call("cuMemFree_v2", self._pointer)

    def _call(self, name: str, *arguments: object) -> None:
        if status := getattr(self._cuda, name)(*arguments):
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(status, ctypes.byref(text))
            raise BenchError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")


@cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(DRIVER)
    except OSError as error:
        raise BenchError(f"no CUDA shared memory: NVIDIA's driver is not installed ({error})") from None
