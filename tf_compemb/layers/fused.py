"""Many fields of one method as one lookup: their tables side by side, ids moved by offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import Layer, id_dtype, ops
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding, combine
from tf_compemb.partitions import Digit
from tf_compemb.storage.table import TableSpec, read_rows
from tf_compemb.storage.uniform_rows import UniformRows


def fusion_key(layer: CompressedEmbedding) -> tuple | None:
    """What two layers must have in common to be looked up as one; None if a layer cannot be.

    Fields fuse when each row number is a digit of the id and the rows are combined alike.
    """
    if not isinstance(layer, PartitionedEmbedding):
        return None
    if not all(isinstance(p, Digit) for p in layer.partitions):
        return None
    count = len(layer.partitions)
    operation = layer.operation if count > 1 or layer.operation == "feature" else "row"
    return (operation, count, layer.output_dim, str(layer.get_config()["embeddings_initializer"]))


class FusedLookup(Layer):
    """The tables of several fields, partition by partition, in one variable each.

    Args:
        layers: The fields' layers, of equal `fusion_key`. They are read for their partitions and
            sizes and are never built.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, layers: Sequence[PartitionedEmbedding], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        first = layers[0]
        self.operation = first.operation
        self.vector_shape = first.vector_shape
        self._initializer = first.embeddings_initializer
        self._specs = [_tables_of(layer) for layer in layers]
        digits = [_digits_of(layer) for layer in layers]
        # (partitions, 2, fields): what each field's ids are divided by, and the modulus.
        self._digits = np.asarray(digits, dtype="int64").transpose(1, 2, 0)
        self._input_dims = np.asarray([layer.input_dim for layer in layers], dtype="int64")
        rows = np.asarray([[s.rows for s in specs] for specs in self._specs], dtype="int64").T
        self._offsets = np.cumsum(rows, axis=1) - rows

    def build(self, input_shape: Any = None) -> None:
        """Creates one variable for each partition."""
        if self.built:
            return
        for j in range(len(self._digits)):
            specs = [field[j] for field in self._specs]
            table = TableSpec(sum(s.rows for s in specs), specs[0].width, limit=0.0)
            initializer = self._initializer or UniformRows([(s.rows, s.limit) for s in specs])
            setattr(self, f"partition_{j}", table.build(self, f"partition_{j}", initializer))
        self.built = True

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, *vector_shape) of ids (batch, fields) that are in range."""
        return self._combined_rows(ids, slice(None))

    def field_vectors(self, position: int, ids: Any) -> Any:
        """Vectors (m, *vector_shape) of ids (m,) of the field at `position` in the group."""
        return self._combined_rows(ids, position)

    def _combined_rows(self, ids: Any, field: Any) -> Any:
        factors = []
        for j, (divisors, moduli) in enumerate(self._digits):
            row = ids
            if (divisors[field] > 1).any():
                row = row // _constant(divisors[field])
            # As in `Digit.classes`: a modulus that no quotient reaches changes nothing.
            if (divisors * moduli < self._input_dims)[field].any():
                row = row % _constant(moduli[field])
            row = row + _constant(self._offsets[j][field])
            factors.append(read_rows(getattr(self, f"partition_{j}"), row, self.compute_dtype))
        return combine(self.operation, factors)


def _constant(values: Any) -> Any:
    return ops.convert_to_tensor(np.asarray(values), dtype=id_dtype())


def _digits_of(layer: PartitionedEmbedding) -> list[tuple[int, int]]:
    """Divisor and modulus of each partition."""
    n = layer.input_dim
    return [(p.divisor(n), p.num_classes(n)) for p in layer.partitions if isinstance(p, Digit)]


def _tables_of(layer: PartitionedEmbedding) -> list[TableSpec]:
    return [spec for spec in layer.table_specs().values() if isinstance(spec, TableSpec)]
