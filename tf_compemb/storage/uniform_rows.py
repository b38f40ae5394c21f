"""Initial numbers of tables: uniform, and drawn in place where a table is large."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tf_compemb._keras import adopt_array, keras, ops

# From this many numbers on Keras' initialiser is slow, and leaves the process three copies larger
# at its peak. Below, Keras' own draws keep its sequence of seeds.
LARGE_TABLE = 2**22
_CHUNK = 2**20


class UniformRows:
    """An initialiser: consecutive groups of rows, each drawn from its own U(-limit, limit).

    Args:
        groups: (rows, limit) of each group, in order.
    """

    def __init__(self, groups: Sequence[tuple[int, float]]) -> None:
        self._groups = list(groups)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """A float32 tensor of `shape` (rows, width)."""
        rows, width = shape
        if rows * width >= LARGE_TABLE:
            return adopt_array(_drawn_in_place(self._groups, width))
        parts = [
            keras.initializers.RandomUniform(-limit, limit)((rows, width), dtype=dtype)
            for rows, limit in self._groups
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def _drawn_in_place(groups: Sequence[tuple[int, float]], width: int) -> np.ndarray:
    """Array (rows, width), drawn by all cores, the same for the same seed of Python's `random`."""
    numbers = _aligned_array(sum(rows for rows, _ in groups) * width)
    chunks, start = [], 0
    for rows, limit in groups:
        stop = start + rows * width
        chunks += [(numbers[a : min(a + _CHUNK, stop)], limit) for a in range(start, stop, _CHUNK)]
        start = stop
    # Python's generator, as in Keras: `keras.utils.set_random_seed` covers it on every runtime.
    seeds = np.random.SeedSequence(random.getrandbits(64)).spawn(len(chunks))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_fill, seeds, *zip(*chunks, strict=True)))
    return numbers.reshape(-1, width)


def _fill(seed: np.random.SeedSequence, chunk: np.ndarray, limit: float) -> None:
    np.random.Generator(np.random.SFC64(seed)).random(dtype=np.float32, out=chunk)
    chunk *= 2 * limit
    chunk -= limit


def _aligned_array(size: int) -> np.ndarray:
    """An uninitialised float32 array at a multiple of 64 bytes, which runtimes need to adopt it."""
    memory = np.empty(4 * size + 64, "uint8")
    offset = -memory.ctypes.data % 64
    return memory[offset : offset + 4 * size].view("float32")
