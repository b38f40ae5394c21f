"""Large tensors written in place, in huge pages: no copies, and fewer misses when rows are read."""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, keras, ops

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "torch":
    import torch

# From this many numbers on Keras' initialisers are slow, and leave the process three copies larger
# at its peak. Below, Keras' own draws keep its sequence of seeds.
LARGE_TABLE = 2**22


def filled_tensor(shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> Any:
    """A float32 tensor whose memory `fill` writes, before anything else sees it.

    TensorFlow allocates it itself: memory that it only borrowed it would copy before the first
    update of a row. Other runtimes adopt an array.

    Args:
        shape: Integers.
        fill: Called once with an uninitialised array of `shape`.
    """
    if BACKEND == "tensorflow" and tf.executing_eagerly():
        with tf.device("CPU:0"):
            tensor = tf.raw_ops.Empty(shape=shape, dtype=tf.float32)
        array = _writable(np.asarray(memoryview(tensor)))
    else:
        tensor = None
        array = _aligned_array(shape)
    ask_for_huge_pages(array)
    fill(array)
    if tensor is not None:
        return tensor
    if BACKEND == "torch" and ops.zeros(()).device.type == "cpu":
        return torch.from_numpy(array)
    return ops.convert_to_tensor(array)


class ConstantRows:
    """An initialiser: one number everywhere, in place where a table is large."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """A tensor of `shape`."""
        shape = tuple(shape)
        if math.prod(shape) >= LARGE_TABLE and getattr(dtype, "name", dtype) == "float32":
            return filled_tensor(shape, lambda array: array.fill(self._value))
        return keras.initializers.Constant(self._value)(shape, dtype=dtype)


def ask_for_huge_pages(array: np.ndarray) -> None:
    """Lets the kernel back an array by huge pages, where its setting is `madvise`, as on Debian.

    Random rows of a table of hundreds of megabytes miss the processor's table of small pages at
    almost every read. What the kernel answers does not matter: it is advice.
    """
    if not sys.platform.startswith("linux"):
        return
    start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - start
    if length > 0:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE
        )


def _writable(array: np.ndarray) -> np.ndarray:
    """A writable view of an array that says it is read-only."""
    numbers = (ctypes.c_float * array.size).from_address(array.ctypes.data)
    return np.ctypeslib.as_array(numbers).reshape(array.shape)


def _aligned_array(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised float32 array at a multiple of 64 bytes, which runtimes need to adopt it."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 64, "uint8")
    offset = -memory.ctypes.data % 64
    return memory[offset : offset + size].view("float32").reshape(shape)
