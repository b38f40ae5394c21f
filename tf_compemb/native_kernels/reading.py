"""Rows of tables, and products of them, read by the compiled kernels.

What is exported or saved must not need the kernels, so that any TensorFlow can load it: outside a
gradient tape TensorFlow's own op reads, but within `native_kernels.in_inference`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_compemb.layers.field_digits import ProductEntries
from tf_compemb.native_kernels import without_gradient
from tf_compemb.native_kernels.library import can_run_on, loaded
from tf_compemb.storage import small_table

if TYPE_CHECKING:
    from tf_compemb.layers.field_digits import FieldDigits

# The ops that read products, and that write the gradients of their tables.
PRODUCTS, GRADIENTS_OF_PRODUCTS = "TfCompemb>ReadRowProducts", "TfCompemb>RowProductGradients"
# What all ops of products say of the tables and who reads them.
ENTRIES = ("rows", "width", "num_fields", "fields", "tables_of_entries")
# What the row numbers are, for the ops that need to know.
DIGITS = ("sizes", "divisors", "moduli", "offsets")

try:
    from tensorflow.python.eager.record import could_possibly_record
    from tensorflow.python.ops.resource_variable_ops import variable_accessed
except ImportError:  # Neither is public; without them TensorFlow's own op reads.
    could_possibly_record = variable_accessed = None


def rows_by_kernel(table: Any, ids: Any) -> Any:
    """Rows (*ids.shape, width) with an `IndexedSlices` gradient, or None.

    None where TensorFlow's own op must read: outside a gradient tape and `in_inference`, where the
    kernels are not built or cannot run, and for a strategy's mirrored variables.

    Args:
        table: `tf.Variable` of shape (rows, width).
        ids: int32 or int64 tensor of any shape.

    Raises:
        tf.errors.InvalidArgumentError: An id is not in `[0, rows)`.
    """
    kernels = _kernels_that_read([table], ids)
    if kernels is None:
        return None
    rows, width = table.shape
    return kernels.tf_compemb_read_rows(table.handle, ids, rows=rows, width=width)


def products_by_kernel(
    tables: Sequence[Any],
    ids: Any,
    groups: Sequence[tuple[FieldDigits, Sequence[int]]],
    message: str = "",
) -> Any:
    """Vectors (batch, fields, width), products of rows, or None as in `rows_by_kernel`.

    The gradient is dense for small tables, `IndexedSlices` for others.

    Args:
        tables: `tf.Variable`s of shape (rows, width), those of all groups.
        ids: int32 or int64 tensor (batch, fields).
        groups: As in `read_products`.
        message: What to say of ids outside a field's range.

    Raises:
        tf.errors.InvalidArgumentError: An id is not in the range of its field.
    """
    kernels = _kernels_that_read(tables, ids)
    if kernels is None:
        return None
    entries = ProductEntries.of(groups)
    if max(*entries.table_rows, *entries.sizes) >= 2**31:
        return None
    return kernels.tf_compemb_read_row_products(
        [table.handle for table in tables],
        ids,
        rows=entries.table_rows,
        width=tables[0].shape[1],
        num_fields=len(entries.sizes),
        fields=entries.fields,
        tables_of_entries=entries.tables,
        sizes=entries.sizes,
        divisors=entries.divisors,
        moduli=entries.moduli,
        offsets=entries.offsets,
        message=message and f"{message} ",
    ).vectors


def _kernels_that_read(tables: Sequence[Any], ids: Any) -> Any:
    """The kernels, if they can read the tables here, which are then marked as read."""
    if could_possibly_record is None or not (could_possibly_record() or without_gradient()):
        return None
    if any(isinstance(t, tf.distribute.DistributedValues) or not can_run_on(t) for t in tables):
        return None
    kernels = loaded()
    if kernels is None or ids.dtype not in (tf.int32, tf.int64):
        return None
    _register_gradients()
    for table in tables:
        variable_accessed(table)  # as `tf.gather` does, for the tape and the graph
    return kernels


@functools.cache
def _register_gradients() -> None:
    @tf.RegisterGradient("TfCompemb>ReadRows")
    def gradient_of_rows(op: Any, upstream: Any) -> tuple[Any, None]:
        rows, width = op.get_attr("rows"), op.get_attr("width")
        return _slices(_rows(upstream, width), op.inputs[1], rows, width), None

    @tf.RegisterGradient(PRODUCTS)
    def gradients_of_products(op: Any, upstream: Any, *_: Any) -> list[Any]:
        rows, width = op.get_attr("rows"), op.get_attr("width")
        dense = [count <= small_table.SMALL_TABLE for count in rows]
        if len(rows) == 1 and not dense[0]:
            return [_slices(_rows(upstream, width), op.outputs[1], rows[0], width), None]
        gradients = loaded().tf_compemb_row_product_gradients(
            list(op.inputs[: len(rows)]),
            list(op.outputs[1:]),
            upstream,
            **{name: op.get_attr(name) for name in ENTRIES},
            dense=dense,
        )
        parts = zip(gradients, dense, op.outputs[1:], rows, strict=True)
        return [
            *(g if is_dense else _slices(g, n, count, width) for g, is_dense, n, count in parts),
            None,
        ]


def _rows(values: Any, width: int) -> Any:
    return tf.reshape(values, (-1, width))


def _slices(values: Any, numbers: Any, rows: int, width: int) -> tf.IndexedSlices:
    numbers = tf.reshape(numbers, (-1,))
    return tf.IndexedSlices(values, numbers, tf.constant([rows, width]))
