"""Initial numbers of tables: uniform, and drawn in place where a table is large."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from tf_compemb._keras import keras, ops
from tf_compemb.storage import in_place

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
        if rows * width >= in_place.LARGE_TABLE:
            return in_place.filled_tensor((rows, width), partial(_draw, self._groups))
        parts = [
            keras.initializers.RandomUniform(-limit, limit)((rows, width), dtype=dtype)
            for rows, limit in self._groups
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)


def _draw(groups: Sequence[tuple[int, float]], table: np.ndarray) -> None:
    """Fills `table` by all cores, with the same numbers for a seed of Python's `random`."""
    numbers, width = table.reshape(-1), table.shape[1]
    chunks, start = [], 0
    for rows, limit in groups:
        stop = start + rows * width
        chunks += [(numbers[a : min(a + _CHUNK, stop)], limit) for a in range(start, stop, _CHUNK)]
        start = stop
    # Python's generator, as in Keras: `keras.utils.set_random_seed` covers it on every runtime.
    seeds = np.random.SeedSequence(random.getrandbits(64)).spawn(len(chunks))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_fill, seeds, *zip(*chunks, strict=True)))


def _fill(seed: np.random.SeedSequence, chunk: np.ndarray, limit: float) -> None:
    np.random.Generator(np.random.SFC64(seed)).random(dtype=np.float32, out=chunk)
    chunk *= 2 * limit
    chunk -= limit
