"""Small tables are read whole and have dense gradients: merging a batch's ids would cost more."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import (
    BACKEND,
    add_rows,
    add_slices,
    in_training,
    ops,
    runs_op_by_op_on_cpu,
)

if BACKEND == "tensorflow":
    import tensorflow as tf

# Up to this many rows visiting every row is cheaper than merging the ids of a batch.
SMALL_TABLE = 2048
# So few rows are read sooner by one thread than TensorFlow's gather has woken others.
_FEW_IDS = 8192


def gather_with_dense_gradient(rows: Any, ids: Any, neutral: float | None = None) -> Any:
    """Rows `ids` of a tensor, with a gradient of the tensor's shape on every runtime.

    TensorFlow's own gradient would be IndexedSlices with a slice for each id.

    Args:
        rows: Tensor or variable (num_rows, width).
        ids: Integer tensor of any shape.
        neutral: None, or what the row after the last holds, one number without a gradient.
    """
    count, width = rows.shape
    further = [] if neutral is None else [ops.full((1, width), neutral, rows.dtype)]
    if BACKEND != "tensorflow":
        return ops.take(ops.concatenate([rows, *further]) if further else rows, ids, axis=0)

    @tf.custom_gradient
    def gather(values: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            slices, numbers = tf.reshape(upstream, (-1, width)), tf.reshape(ids, (-1,))
            if not further:
                return add_slices(slices, numbers, count)
            return add_slices(slices, numbers, count + 1)[:count]

        return _gather(tf.concat([values, *further], 0) if further else values, ids), gradient

    return gather(tf.convert_to_tensor(rows))


def _gather(table: Any, ids: Any) -> Any:
    if not in_training() or not runs_op_by_op_on_cpu():
        return tf.gather(table, ids)
    many = None if ids.shape.num_elements() is None else ids.shape.num_elements() > _FEW_IDS
    if many is None:
        few = tf.size(ids) <= _FEW_IDS
        return tf.cond(few, lambda: _few_rows(table, ids), lambda: tf.gather(table, ids))
    return tf.gather(table, ids) if many else _few_rows(table, ids)


def _few_rows(table: Any, ids: Any) -> Any:
    """`tf.gather(table, ids)` as the product of a sparse matrix of ones with the table."""
    flat = tf.reshape(ids, (-1,))
    count = tf.size(flat, flat.dtype)
    rows = add_rows(table, flat, tf.range(count), count)
    return tf.reshape(rows, tf.concat([tf.shape(ids), table.shape[1:]], 0))
