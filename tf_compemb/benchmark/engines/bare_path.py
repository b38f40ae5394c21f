"""The quickest forms of path-based embeddings, as bare TensorFlow without layers of their own.

In a large field an id's quotient by 4 chooses a row and its remainder one of 4 networks 16-64-16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.benchmark.engines.other_layers import Tables
from tf_compemb.benchmark.inputs import offsets

_COLLISIONS, _HIDDEN = 4, 64


class BarePath(Tables):
    """Rows of all fields in one table; the networks of a field are stacked.

    As in a collection, fields that networks would not make smaller are plain rows.

    Args:
        sizes: Ids of each field.
        dim: Width of the vectors.
    """

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim)
        networks = _COLLISIONS * (2 * dim * _HIDDEN + _HIDDEN + dim)
        self.chosen = [
            f for f, n in enumerate(sizes) if -(-n // _COLLISIONS) * dim + networks < n * dim
        ]
        self._divisors = np.array(
            [_COLLISIONS if f in self.chosen else 1 for f in range(len(sizes))]
        )
        rows = list(-(-np.array(sizes) // self._divisors))
        self._offsets = offsets(rows)
        fields = len(self.chosen)
        self.base = self.add_weight(name="base", shape=(sum(rows), dim))
        if not fields:
            return
        self.first = self.add_weight(name="first", shape=(fields, _COLLISIONS, dim, _HIDDEN))
        self.first_bias = self.add_weight(name="first_bias", shape=(fields, _COLLISIONS, _HIDDEN))
        self.last = self.add_weight(name="last", shape=(fields, _COLLISIONS, _HIDDEN, dim))
        self.last_bias = self.add_weight(name="last_bias", shape=(fields, _COLLISIONS, dim))

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, dim): those through networks first, then the others."""
        table = self.base if isinstance(self.base, tf.Variable) else self.base.value
        rows = tf.gather(table, ids // self._divisors + self._offsets)
        if not self.chosen:
            return rows
        others = [f for f in range(self.num_vectors) if f not in self.chosen]
        classes = tf.gather(ids, self.chosen, axis=1) % _COLLISIONS
        vectors = self.through_networks(tf.gather(rows, self.chosen, axis=1), classes)
        return tf.concat([vectors, tf.gather(rows, others, axis=1)], axis=1)

    def through_networks(self, rows: Any, classes: Any) -> Any:
        """Rows (batch, chosen, dim) through the networks `classes` (batch, chosen)."""
        raise NotImplementedError


class FusedPath(BarePath):
    """All fields as one: rows spread by their network's place, then its output chosen."""

    def through_networks(self, rows: Any, classes: Any) -> Any:
        """Two products for each field, of which a mask leaves the chosen network."""
        own = tf.one_hot(classes, _COLLISIONS, dtype=rows.dtype)
        fields, dim = len(self.chosen), self.output_dim
        spread = tf.reshape(rows[:, :, None] * own[..., None], (-1, fields, _COLLISIONS * dim))
        kernel = tf.reshape(self.first, (fields, _COLLISIONS * dim, _HIDDEN))
        hidden = tf.einsum("bfi,fih->bfh", spread, kernel)
        hidden = tf.nn.relu(hidden + tf.einsum("bfc,fch->bfh", own, self.first_bias))
        outputs = tf.einsum("bfh,fchd->bfcd", hidden, self.last) + self.last_bias
        return tf.reduce_sum(outputs * own[..., None], axis=2)


class PartitionedPath(BarePath):
    """Field by field: the rows of each network through it, then back in order."""

    def through_networks(self, rows: Any, classes: Any) -> Any:
        """Two products for each network."""
        fields = range(len(self.chosen))
        return tf.stack([self._field(f, rows[:, f], classes[:, f]) for f in fields], 1)

    def _field(self, f: int, rows: Any, classes: Any) -> Any:
        classes = tf.cast(classes, tf.int32)
        places = tf.dynamic_partition(tf.range(tf.shape(rows)[0]), classes, _COLLISIONS)
        groups = tf.dynamic_partition(rows, classes, _COLLISIONS)
        networks = zip(
            *[tf.unstack(w[f]) for w in (self.first, self.first_bias, self.last, self.last_bias)],
            strict=True,
        )
        return tf.dynamic_stitch(
            places,
            [
                tf.nn.relu(x @ kernel + bias) @ last + last_bias
                for x, (kernel, bias, last, last_bias) in zip(groups, networks, strict=True)
            ],
        )


def fused_path(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `FusedPath`."""
    del batch
    return FusedPath(sizes, dim)


def partitioned_path(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `PartitionedPath`."""
    del batch
    return PartitionedPath(sizes, dim)
