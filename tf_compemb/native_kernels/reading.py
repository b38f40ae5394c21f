"""Rows of large tables read by the compiled kernels, in training only.

What is exported or saved must not need the kernels, so that any TensorFlow can load it: outside a
gradient tape TensorFlow's own op reads.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_compemb.native_kernels.library import can_run_on, loaded

try:
    from tensorflow.python.eager.record import could_possibly_record
    from tensorflow.python.ops.resource_variable_ops import variable_accessed
except ImportError:  # Neither is public; without them TensorFlow's own op reads.
    could_possibly_record = variable_accessed = None


def trained_rows(table: Any, ids: Any) -> Any:
    """Rows (*ids.shape, width) with an `IndexedSlices` gradient, or None.

    None where TensorFlow's own op must read: outside a gradient tape, where the kernels are not
    built or cannot run, and for a strategy's mirrored variables.

    Args:
        table: `tf.Variable` of shape (rows, width).
        ids: int32 or int64 tensor of any shape.

    Raises:
        tf.errors.InvalidArgumentError: An id is not in `[0, rows)`.
    """
    if could_possibly_record is None or not could_possibly_record():
        return None
    if isinstance(table, tf.distribute.DistributedValues) or not can_run_on(table):
        return None
    kernels = loaded()
    if kernels is None or ids.dtype not in (tf.int32, tf.int64):
        return None
    _register_gradient()
    variable_accessed(table)  # as `tf.gather` does, for the tape and the graph
    rows, width = table.shape
    return kernels.tf_compemb_read_rows(table.handle, ids, rows=rows, width=width)


@functools.cache
def _register_gradient() -> None:
    @tf.RegisterGradient("TfCompemb>ReadRows")
    def gradient(op: Any, upstream: Any) -> tuple[Any, None]:
        rows, width = op.get_attr("rows"), op.get_attr("width")
        ids = tf.reshape(op.inputs[1], (-1,))
        slices = tf.reshape(upstream, (-1, width))
        return tf.IndexedSlices(slices, ids, tf.constant([rows, width])), None
