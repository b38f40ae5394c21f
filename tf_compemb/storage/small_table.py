"""Small tables are read whole and have dense gradients: merging a batch's ids would cost more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, add_slices, ops

if BACKEND == "tensorflow":
    import tensorflow as tf

# Up to this many rows visiting every row is cheaper than merging the ids of a batch.
SMALL_TABLE = 2048
# Up to this many rows a field, adding up gradients is cheaper as a product with a one-hot matrix.
_ONE_HOT_ROWS = 16


@dataclass(frozen=True)
class Blocks:
    """Where the columns of a matrix of row numbers read: column f in `size` rows from `starts[f]`.

    A column that is not in `members` reads none of the table's rows.
    """

    starts: np.ndarray
    size: int
    members: np.ndarray

    @property
    def are_tiny(self) -> bool:
        """Whether a one-hot matrix is the quicker way to add up gradients."""
        return self.size <= _ONE_HOT_ROWS


def gather_with_dense_gradient(
    rows: Any, ids: Any, blocks: Blocks | None = None, neutral: float | None = None
) -> Any:
    """Rows `ids` of a tensor, with a gradient of the tensor's shape on every runtime.

    TensorFlow's own gradient would be IndexedSlices with a slice for each id.

    Args:
        rows: Tensor or variable (num_rows, width).
        ids: Integer tensor of any shape; (batch, columns) with `blocks`.
        blocks: What the columns of `ids` read, if that is known and `are_tiny`.
        neutral: None, or what the row after the last holds, one number without a gradient.
    """
    count, width = rows.shape
    further = [] if neutral is None else [ops.full((1, width), neutral, rows.dtype)]
    if BACKEND != "tensorflow":
        return ops.take(ops.concatenate([rows, *further]) if further else rows, ids, axis=0)

    @tf.custom_gradient
    def gather(values: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            if blocks is not None and blocks.are_tiny:
                return _sums_by_block(upstream, ids, blocks, count)
            slices, numbers = tf.reshape(upstream, (-1, width)), tf.reshape(ids, (-1,))
            if not further:
                return add_slices(slices, numbers, count)
            return add_slices(slices, numbers, count + 1)[:count]

        return tf.gather(tf.concat([values, *further], 0) if further else values, ids), gradient

    return gather(tf.convert_to_tensor(rows))


def _sums_by_block(upstream: Any, ids: Any, blocks: Blocks, num_rows: int) -> Any:
    own = tf.one_hot(ids - tf.cast(blocks.starts, ids.dtype), blocks.size, dtype=upstream.dtype)
    sums = tf.einsum("bfr,bfd->frd", own, upstream)
    if len(blocks.members) < len(blocks.starts):
        sums = tf.gather(sums, blocks.members)
    sums = tf.reshape(sums, (-1, upstream.shape[-1]))
    further = num_rows - len(blocks.members) * blocks.size
    return tf.pad(sums, [[0, further], [0, 0]]) if further else sums
