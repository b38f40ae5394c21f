"""Quotient-remainder as bare TensorFlow: two gathers and a product, without a layer of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.benchmark.engines.other_layers import Tables
from tf_compemb.benchmark.inputs import offsets

_COLLISIONS = 4


class BareQuotientRemainder(Tables):
    """Quotient rows of all fields in one table, remainder rows in another.

    As in a collection, fields that two tables would not make smaller are plain rows; their
    remainder row is the last, ones.

    Args:
        sizes: Ids of each field.
        dim: Width of the vectors.
    """

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim)
        counts = np.array(sizes)
        chosen = -(-counts // _COLLISIONS) + _COLLISIONS < counts
        rows = np.where(chosen, -(-counts // _COLLISIONS), counts)
        remainders = np.where(chosen, _COLLISIONS, 0)
        self._shifts = tf.constant(np.where(chosen, int(np.log2(_COLLISIONS)), 0), tf.int32)
        self._masks = tf.constant(np.where(chosen, _COLLISIONS - 1, 0), tf.int32)
        self._starts = tf.constant(offsets(list(rows)), tf.int32)
        last = remainders.sum()
        starts = np.where(chosen, offsets(list(remainders)), last)
        self._remainder_starts = tf.constant(starts, tf.int32)
        self.quotient = self.add_weight(name="quotient", shape=(int(rows.sum()), dim))
        self.remainder = self.add_weight(
            name="remainder", shape=(int(last) + 1, dim), initializer="ones"
        )

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, dim)."""
        ids = tf.cast(ids, tf.int32)
        quotients = tf.bitwise.right_shift(ids, self._shifts) + self._starts
        remainders = tf.bitwise.bitwise_and(ids, self._masks) + self._remainder_starts
        return _rows(self.quotient, quotients) * _rows(self.remainder, remainders)


def _rows(table: Any, numbers: Any) -> Any:
    return tf.gather(table if isinstance(table, tf.Variable) else table.value, numbers)


def bare_quotient_remainder(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `BareQuotientRemainder`."""
    del batch
    return BareQuotientRemainder(sizes, dim)
