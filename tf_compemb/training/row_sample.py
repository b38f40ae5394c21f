"""The rows of which methods are told that need to know which ids occur together."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tf_compemb.data.batch_order import RowOrder
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS

# 13 MB of ids. Of ids that are in one of 20,000 rows, most are in two rows of the sample or more.
SAMPLE_ROWS = 131_072


class RowSample:
    """Ids of the blocks of training rows with which the first epoch of a run begins.

    The file is read when a field is first asked for.

    Args:
        data: A `PreparedDataset`.
        seed: The run's, which orders its rows.
        rows: At most how many.
    """

    def __init__(self, data: Any, seed: int, rows: int = SAMPLE_ROWS) -> None:
        self._data = data
        self._seed = seed
        self._rows = rows

    def __call__(self, field: str) -> np.ndarray:
        """The ids of a field, such as "C1", in the rows of the sample: integers (rows,)."""
        return self._ids[:, CATEGORICAL_FIELDS.index(field)]

    @functools.cached_property
    def _ids(self) -> np.ndarray:
        dtype = "int32" if max(self._data.cardinalities) < 2**31 else "int64"
        found: list[np.ndarray] = []
        left = self._rows
        for window in RowOrder(self._data.split_size("train"), self._seed).windows():
            for start, stop in window.ranges:
                stop = min(stop, start + left)
                features, _ = self._data.arrays("train", start, stop)
                found.append(features["categorical"].astype(dtype))
                left -= stop - start
                if not left:
                    return np.concatenate(found)
        return np.concatenate(found)
