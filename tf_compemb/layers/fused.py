"""Many fields as one lookup: their tables side by side, ids moved by offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding, combine
from tf_compemb.layers.field_digits import FieldDigits
from tf_compemb.layers.group_lookup import GroupLookup
from tf_compemb.partitions import Digit
from tf_compemb.storage import small_table
from tf_compemb.storage.table import TableSpec, read_products, read_rows
from tf_compemb.storage.uniform_rows import UniformRows

# What a further row must hold for an operation to leave a vector as it is.
_NEUTRAL = {"mult": 1.0, "add": 0.0}


def fusion_groups(layers: Sequence[CompressedEmbedding]) -> list[list[int]]:
    """Which layers are looked up as one: lists of positions, each in ascending order.

    Layers fuse when each row number is a digit of the id and the rows are combined alike. Layers
    of one table join others whose further tables are small: there they read a neutral row.
    """
    groups: dict[Any, list[int]] = {}
    for i, layer in enumerate(layers):
        key = _fusion_key(layer)
        groups.setdefault((i,) if key is None else key, []).append(i)
    for key in [key for key in groups if key[0] == "row"]:
        hosts = [
            other
            for other, members in groups.items()
            if other[0] in _NEUTRAL
            and other[2:] == key[2:]
            and _further_tables_are_small([layers[i] for i in members])
        ]
        if hosts:
            host = max(hosts, key=lambda other: len(groups[other]))
            groups[host] = sorted(groups[host] + groups.pop(key))
    return sorted(groups.values())


def _fusion_key(layer: CompressedEmbedding) -> tuple | None:
    """What two layers must have in common to be fused; None if a layer cannot be."""
    if not isinstance(layer, PartitionedEmbedding):
        return None
    if not all(isinstance(p, Digit) for p in layer.partitions):
        return None
    count = len(layer.partitions)
    operation = layer.operation if count > 1 or layer.operation == "feature" else "row"
    return (operation, count, layer.output_dim, str(layer.get_config()["embeddings_initializer"]))


def _further_tables_are_small(layers: Sequence[CompressedEmbedding]) -> bool:
    rows = np.sum([[table.rows for table in _tables_of(layer)] for layer in layers], axis=0)
    return rows.sum() - rows.max() <= small_table.SMALL_TABLE


class FusedLookup(GroupLookup):
    """The tables of several fields, partition by partition, in one variable each.

    Args:
        layers: The fields' layers, one of the groups that `fusion_groups` makes. They are read
            for their partitions and sizes and are never built.
        **kwargs: Of `keras.layers.Layer`.

    Attributes:
        digits: Which rows of the partitions' variables are an id's.
    """

    def __init__(self, layers: Sequence[PartitionedEmbedding], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layers_read = _Layers(layers)
        widest = max(layers, key=lambda layer: len(layer.partitions))
        self.operation = widest.operation
        self.vector_shape = widest.vector_shape
        self._initializer = widest.embeddings_initializer
        self.digits = FieldDigits.of([(x.input_dim, x.partitions) for x in layers])

    def build(self, input_shape: Any = None) -> None:
        """Creates one variable for each partition."""
        if self.built:
            return
        tables = [_tables_of(layer) for layer in self._layers_read.layers]
        for j, rows in enumerate(self.digits.rows):
            specs = [
                own[j if len(own) == len(self.digits.rows) else 0]
                for own, count in zip(tables, rows, strict=True)
                if count
            ]
            table = TableSpec(int(rows.sum()), specs[0].width, limit=0.0)
            initializer = self._initializer or UniformRows([(s.rows, s.limit) for s in specs])
            setattr(self, f"partition_{j}", table.build(self, f"partition_{j}", initializer))
        self.built = True

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, *vector_shape) of ids (batch, fields) that are in range."""
        everything = range(len(self.digits.sizes))
        vectors = vectors_as_products([self], [everything], ids)
        return self._combined_rows(ids) if vectors is None else vectors

    def _combined_rows(self, ids: Any) -> Any:
        variables = self.variables_of_partitions()
        factors = []
        for j, row in enumerate(self.digits.row_numbers(ids)):
            neutral = _NEUTRAL[self.operation] if self.digits.reaches_beyond(j) else None
            factors.append(read_rows(variables[j], row, self.compute_dtype, neutral))
        return combine(self.operation, factors)

    @property
    def makes_products(self) -> bool:
        """Whether a vector is a row, or the product of rows."""
        one_row = len(self.digits.rows) == 1 and self.operation != "feature"
        return one_row or self.operation == "mult"

    def variables_of_partitions(self) -> list[Any]:
        """The variable of each partition."""
        return [getattr(self, f"partition_{j}") for j in range(len(self.digits.rows))]

    def field_vectors(self, position: int, ids: Any) -> Any:
        """Vectors (m, *vector_shape) of ids (m,) of the field at `position` in the group."""
        numbers = self.digits.row_numbers(ids, slice(position, position + 1))
        tables = zip(self.variables_of_partitions(), numbers, self.digits.rows, strict=True)
        factors = [
            read_rows(variable, row, self.compute_dtype)
            for variable, row, rows in tables
            if rows[position]
        ]
        return combine(self.operation, factors)

    def field_tables(self, position: int) -> Iterator[tuple[str, Any, int, int]]:
        """The tables of one field: name in the field's layer, variable, first row, end."""
        layer = self._layers_read.layers[position]
        names = [n for n, spec in layer.table_specs().items() if isinstance(spec, TableSpec)]
        places = np.flatnonzero(self.digits.rows[:, position])
        for name, j in zip(names, places, strict=True):
            start = int(self.digits.offsets[j, position])
            rows = int(self.digits.rows[j, position])
            yield name, getattr(self, f"partition_{j}"), start, start + rows


def vectors_as_products(
    lookups: Sequence[Any], groups: Sequence[Sequence[int]], ids: Any, message: str = ""
) -> Any:
    """The vectors of all fields in one pass of the compiled kernels.

    Args:
        lookups: The fields' lookups.
        groups: Each lookup's fields.
        ids: Integer tensor (batch, fields).
        message: What to say of ids outside a field's range, which are refused.

    Returns:
        Vectors (batch, fields, output_dim), or None where a lookup makes something else than
        products of rows, or `read_products` does not read them.
    """
    if not all(isinstance(lookup, FusedLookup) and lookup.makes_products for lookup in lookups):
        return None
    variables = [v for lookup in lookups for v in lookup.variables_of_partitions()]
    fields = list(zip([lookup.digits for lookup in lookups], groups, strict=True))
    return read_products(variables, ids, fields, lookups[0].compute_dtype, message)


class _Layers:
    """The fields' layers, kept from Keras, which would track those that are only specifications."""

    def __init__(self, layers: Sequence[PartitionedEmbedding]) -> None:
        self.layers = list(layers)


def _tables_of(layer: CompressedEmbedding) -> list[TableSpec]:
    return [spec for spec in layer.table_specs().values() if isinstance(spec, TableSpec)]
