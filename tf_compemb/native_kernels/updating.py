"""Gradients that the compiled kernels apply without writing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tf_compemb.native_kernels.library import can_run_on, loaded
from tf_compemb.native_kernels.reading import DIGITS, ENTRIES, GRADIENTS_OF_PRODUCTS, PRODUCTS

# Ops that leave a table as it is; of others, such as calls of functions, it is not known.
_READERS = {"ReadVariableOp", "ResourceGather", "VariableShape", "TfCompemb>ReadRows"}
_READERS |= {PRODUCTS, GRADIENTS_OF_PRODUCTS}


@dataclass(frozen=True)
class ProductGradient:
    """The gradient of vectors that are products of rows of tables, in a graph.

    Attributes:
        kernels: Module of the library's ops.
        variables: The tables, `tf.Variable`s.
        row_numbers: Of each table, int32 (batch, entries of the table).
        upstream: Gradient of the vectors, float32 (batch, fields, width).
        entries: Which rows the vectors are products of: attributes of the kernels' ops.
    """

    kernels: Any
    variables: list[Any]
    row_numbers: list[Any]
    upstream: Any
    entries: dict[str, Any]

    @property
    def handles(self) -> list[Any]:
        """Those of the tables."""
        return [variable.handle for variable in self.variables]


def product_gradients(
    gradients_and_variables: Sequence[tuple[Any, Any]],
) -> list[ProductGradient]:
    """The products all of whose tables are among the variables, with the gradients as they are.

    The op that writes the gradients stays in the graph. It computes nothing if nobody reads them.

    Args:
        gradients_and_variables: Pairs of a gradient, or None, and a `tf.Variable`.
    """
    if tf.executing_eagerly() or tf.distribute.has_strategy():
        return []
    found: dict[Any, dict[int, Any]] = {}
    for gradient, variable in gradients_and_variables:
        source = _source(gradient)
        if source is not None and can_run_on(variable):
            lookup, upstream, table = source
            found.setdefault((lookup, upstream.ref()), {})[table] = variable
    products = [
        _product(lookup, upstream.deref(), tables) for (lookup, upstream), tables in found.items()
    ]
    return [product for product in products if product is not None]


def _source(gradient: Any) -> tuple[Any, Any, int] | None:
    """Of a gradient as it was taken: the lookup's op, the vectors' gradient, the table's place."""
    is_sparse = isinstance(gradient, tf.IndexedSlices)
    values = _origin(gradient.values if is_sparse else gradient)
    numbers = _origin(gradient.indices) if is_sparse else None
    if values is None or values.dtype != tf.float32:
        return None
    if values.op.type == GRADIENTS_OF_PRODUCTS:
        count, table = len(values.op.outputs), values.value_index
        lookup, upstream = values.op.inputs[count].op, values.op.inputs[2 * count]
    elif numbers is not None and numbers.op.type == PRODUCTS and len(numbers.op.outputs) == 2:
        # Those of a table read alone are the vectors' own, whatever became of them since.
        lookup, table = numbers.op, 0
        shape = (-1, lookup.get_attr("num_fields"), lookup.get_attr("width"))
        upstream = tf.reshape(gradient.values, shape)
    else:
        return None
    if lookup.type != PRODUCTS or (is_sparse and numbers is not lookup.outputs[1 + table]):
        return None
    return lookup, upstream, table


def _origin(tensor: Any) -> Any:
    """The tensor of the current graph whose identity, in whatever shape, another is; or None.

    Keras takes the identity of gradients where it would add up those of several replicas.
    """
    if getattr(tensor, "graph", None) is not tf.compat.v1.get_default_graph():
        return None
    while tensor.op.type in ("Identity", "IdentityN", "Reshape"):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def _product(lookup: Any, upstream: Any, tables: dict[int, Any]) -> ProductGradient | None:
    """None where a table is missing, is not the one that was read, or has changed since."""
    numbers = list(lookup.outputs[1:])
    handles = lookup.inputs[: len(numbers)]
    if len(tables) < len(numbers):
        return None
    variables = [tables[t] for t in range(len(numbers))]
    if any(_in_graph(v.handle) is not h for v, h in zip(variables, handles, strict=True)):
        return None
    if _are_written_since(lookup, handles):
        return None
    entries = {name: lookup.get_attr(name) for name in (*ENTRIES, *DIGITS)}
    return ProductGradient(loaded(), variables, numbers, upstream, entries)


def _are_written_since(lookup: Any, handles: Sequence[Any]) -> bool:
    """Whether an op after the lookup may have changed a table, of which the gradients are then."""
    writers = [op for handle in handles for op in handle.consumers() if op.type not in _READERS]
    if not writers:
        return False
    operations = lookup.graph.get_operations()
    return any(operations.index(op) > operations.index(lookup) for op in writers)


def _in_graph(handle: Any) -> Any:
    """A variable's handle as ops of the current graph have it."""
    graph = tf.compat.v1.get_default_graph()
    return graph.capture(handle) if hasattr(graph, "capture") else handle
