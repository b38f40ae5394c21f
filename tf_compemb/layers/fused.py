"""Many fields as one lookup: their tables side by side, ids moved by offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, id_dtype, ops, runs_op_by_op_on_cpu, traced_for_lite
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding, combine
from tf_compemb.layers.group_lookup import GroupLookup
from tf_compemb.partitions import Digit
from tf_compemb.storage import small_table
from tf_compemb.storage.table import TableSpec, read_rows
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
    """

    def __init__(self, layers: Sequence[PartitionedEmbedding], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layers_read = _Layers(layers)
        widest = max(layers, key=lambda layer: len(layer.partitions))
        self.operation = widest.operation
        self.vector_shape = widest.vector_shape
        self._initializer = widest.embeddings_initializer
        self._input_dims = np.asarray([layer.input_dim for layer in layers], dtype="int64")
        count = len(widest.partitions)
        whole = [_tables_of(layer) for layer in layers if len(layer.partitions) == count]
        rows = np.sum([[table.rows for table in tables] for tables in whole], axis=0)
        self._place_digits(layers, count, int(np.argmax(rows)))

    def _place_digits(
        self, layers: Sequence[PartitionedEmbedding], count: int, largest: int
    ) -> None:
        """Fills (partitions, fields) arrays: divisors, moduli, rows, offsets."""
        shape = (count, len(layers))
        self._divisors, self._moduli = np.ones(shape, "int64"), np.ones(shape, "int64")
        self._rows = np.zeros(shape, "int64")
        for f, layer in enumerate(layers):
            places = range(count) if len(layer.partitions) == count else [largest]
            # An id divided by `input_dim` is 0, and a digit modulo 1 is too.
            self._divisors[places[-1] :, f] = layer.input_dim
            for j, partition, table in zip(
                places, layer.partitions, _tables_of(layer), strict=True
            ):
                self._divisors[j, f] = partition.divisor(layer.input_dim)  # type: ignore[attr-defined]
                self._moduli[j, f] = partition.num_classes(layer.input_dim)
                self._rows[j, f] = table.rows
        ends = np.cumsum(self._rows, axis=1)
        # A field without a row in a partition reads the neutral row, after the last.
        self._offsets = np.where(self._rows > 0, ends - self._rows, ends[:, -1:])

    def build(self, input_shape: Any = None) -> None:
        """Creates one variable for each partition."""
        if self.built:
            return
        tables = [_tables_of(layer) for layer in self._layers_read.layers]
        for j, rows in enumerate(self._rows):
            specs = [
                own[j if len(own) == len(self._rows) else 0]
                for own, count in zip(tables, rows, strict=True)
                if count
            ]
            table = TableSpec(int(rows.sum()), specs[0].width, limit=0.0)
            initializer = self._initializer or UniformRows([(s.rows, s.limit) for s in specs])
            setattr(self, f"partition_{j}", table.build(self, f"partition_{j}", initializer))
        self.built = True

    def call(self, ids: Any) -> Any:
        """Vectors (batch, fields, *vector_shape) of ids (batch, fields) that are in range."""
        factors = []
        for j, row in enumerate(self._row_numbers(ids, slice(None))):
            neutral = None if self._rows[j].all() else _NEUTRAL[self.operation]
            variable = getattr(self, f"partition_{j}")
            factors.append(read_rows(variable, row, self.compute_dtype, neutral))
        return combine(self.operation, factors)

    def _arithmetic_dtype(self) -> str:
        """The type of ids and row numbers: 32 bits take TensorFlow half the time on a CPU.

        For a GPU it computes them on the CPU, and those of 64 bits on the GPU.
        """
        fits = max(self._input_dims.max(), self._rows.sum(axis=1).max()) < 2**31
        on_cpu = BACKEND == "tensorflow" and runs_op_by_op_on_cpu()
        return "int32" if on_cpu and fits else id_dtype()

    def field_vectors(self, position: int, ids: Any) -> Any:
        """Vectors (m, *vector_shape) of ids (m,) of the field at `position` in the group."""
        rows = self._row_numbers(ids, slice(position, position + 1))
        factors = [
            read_rows(getattr(self, f"partition_{j}"), row, self.compute_dtype)
            for j, row in enumerate(rows)
            if self._rows[j, position]
        ]
        return combine(self.operation, factors)

    def field_tables(self, position: int) -> Iterator[tuple[str, Any, int, int]]:
        """The tables of one field: name in the field's layer, variable, first row, end."""
        layer = self._layers_read.layers[position]
        names = [n for n, spec in layer.table_specs().items() if isinstance(spec, TableSpec)]
        places = np.flatnonzero(self._rows[:, position])
        for name, j in zip(names, places, strict=True):
            start = int(self._offsets[j, position])
            rows = int(self._rows[j, position])
            yield name, getattr(self, f"partition_{j}"), start, start + rows

    def _row_numbers(self, ids: Any, fields: slice) -> list[Any]:
        """For each partition the row numbers of `ids` in its variable."""
        divisors, moduli = self._divisors[:, fields], self._moduli[:, fields]
        sizes = self._input_dims[fields]
        dtype = self._arithmetic_dtype()
        ids = ops.cast(ids, dtype)
        quotients = {d.tobytes(): _quotient(ids, d, sizes, dtype) for d in divisors}
        numbers = []
        for j, offsets in enumerate(self._offsets[:, fields]):
            digit = quotients[divisors[j].tobytes()]
            reach = divisors[j] * moduli[j]
            # As in `Digit.classes`: a modulus that no quotient reaches changes nothing.
            if (reach < sizes).any():
                digit = _remainder(digit, moduli[j], quotients.get(reach.tobytes()), dtype)
            numbers.append(digit + _constant(offsets, dtype) if offsets.any() else digit)
        return numbers


class _Layers:
    """The fields' layers, kept from Keras, which would track those that are only specifications."""

    def __init__(self, layers: Sequence[PartitionedEmbedding]) -> None:
        self.layers = list(layers)


def _quotient(ids: Any, divisors: np.ndarray, sizes: np.ndarray, dtype: str) -> Any:
    """`ids // divisors` for ids below `sizes`, by shifts where that is the same."""
    if (divisors == 1).all():
        return ids
    nothing_left = divisors >= sizes
    if not _bits_do(np.where(nothing_left, 1, divisors)):
        return ids // _constant(divisors, dtype)
    all_bits = 8 * np.dtype(dtype).itemsize - 1
    shifts = np.where(nothing_left, all_bits, np.log2(divisors).astype("int64"))
    return ops.right_shift(ids, _constant(shifts, dtype))


def _remainder(digit: Any, moduli: np.ndarray, above: Any, dtype: str) -> Any:
    """`digit mod moduli`; `above` is `digit // moduli`, or None where it is not at hand."""
    if _bits_do(moduli):
        return ops.bitwise_and(digit, _constant(moduli - 1, dtype))
    if above is None:
        return digit % _constant(moduli, dtype)
    return digit - above * _constant(moduli, dtype)  # Spares a second division.


def _bits_do(values: np.ndarray) -> bool:
    """Whether all are powers of two; TFLite has no operations on bits."""
    return not traced_for_lite() and bool((values & (values - 1) == 0).all())


def _constant(values: np.ndarray, dtype: str) -> Any:
    """One number where all are equal, which divides quicker."""
    equal = (values == values[0]).all()
    return ops.convert_to_tensor(values[0] if equal else values, dtype=dtype)


def _tables_of(layer: CompressedEmbedding) -> list[TableSpec]:
    return [spec for spec in layer.table_specs().values() if isinstance(spec, TableSpec)]
