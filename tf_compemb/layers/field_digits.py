"""Row numbers of many fields as digits of their ids, each with the numbers of its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, id_dtype, ops, runs_op_by_op_on_cpu, traced_for_lite


@dataclass(frozen=True)
class FieldDigits:
    """Of field f's ids table j reads the row `id // divisors[j, f] % moduli[j, f] + offsets[j, f]`.

    Attributes:
        sizes: Ids of field f are in `[0, sizes[f])`; integers of shape (fields,).
        divisors: Integers of shape (tables, fields), as the following.
        moduli: What the quotients are taken modulo.
        rows: How many rows of the table belong to the field.
    """

    sizes: np.ndarray
    divisors: np.ndarray
    moduli: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, fields: Sequence[tuple[int, Sequence[Any]]]) -> FieldDigits:
        """Those of fields of `input_dim` ids whose partitions are `Digit`s.

        Args:
            fields: `input_dim` and partitions of each field: one, or as many as there are tables.
                The rows of a field with one partition stand in the largest of the tables.
        """
        count = max(len(partitions) for _, partitions in fields)
        classes = [[p.num_classes(size) for p in partitions] for size, partitions in fields]
        largest = int(np.argmax(np.sum([own for own in classes if len(own) == count], axis=0)))
        shape = (count, len(fields))
        divisors, moduli = np.ones(shape, "int64"), np.ones(shape, "int64")
        rows = np.zeros(shape, "int64")
        for f, (size, partitions) in enumerate(fields):
            places = range(count) if len(partitions) == count else [largest]
            # An id divided by `input_dim` is 0, and a digit modulo 1 is too.
            divisors[places[-1] :, f] = size
            for j, partition, own in zip(places, partitions, classes[f], strict=True):
                divisors[j, f] = partition.divisor(size)
                moduli[j, f] = rows[j, f] = own
        return cls(np.asarray([size for size, _ in fields], "int64"), divisors, moduli, rows)

    @property
    def table_rows(self) -> np.ndarray:
        """Rows of each table, shape (tables,)."""
        return self.rows.sum(axis=1)

    @property
    def offsets(self) -> np.ndarray:
        """Each field's first row; one after the last where the field has no row in a table."""
        ends = np.cumsum(self.rows, axis=1)
        return np.where(self.rows > 0, ends - self.rows, ends[:, -1:])

    def reaches_beyond(self, table: int) -> bool:
        """Whether fields without a row read one after the table's last."""
        return not self.rows[table].all()

    def row_numbers(self, ids: Any, fields: slice = slice(None)) -> list[Any]:
        """For each table the row numbers of ids (batch, fields)."""
        divisors, moduli = self.divisors[:, fields], self.moduli[:, fields]
        sizes = self.sizes[fields]
        dtype = self._arithmetic_dtype()
        ids = ops.cast(ids, dtype)
        quotients = {d.tobytes(): _quotient(ids, d, sizes, dtype) for d in divisors}
        numbers = []
        for j, offsets in enumerate(self.offsets[:, fields]):
            digit = quotients[divisors[j].tobytes()]
            reach = divisors[j] * moduli[j]
            # As in `Digit.classes`: a modulus that no quotient reaches changes nothing.
            if (reach < sizes).any():
                digit = _remainder(digit, moduli[j], quotients.get(reach.tobytes()), dtype)
            numbers.append(digit + _constant(offsets, dtype) if offsets.any() else digit)
        return numbers

    def _arithmetic_dtype(self) -> str:
        """The type of ids and row numbers: 32 bits take TensorFlow half the time on a CPU.

        For a GPU it computes them on the CPU, and those of 64 bits on the GPU.
        """
        fits = max(self.sizes.max(), self.table_rows.max()) < 2**31
        on_cpu = BACKEND == "tensorflow" and runs_op_by_op_on_cpu()
        return "int32" if on_cpu and fits else id_dtype()


@dataclass(frozen=True)
class ProductEntries:
    """Which rows of which tables a field's vectors are products of, as lists with an entry each.

    Attributes:
        sizes: Ids of field f are in `[0, sizes[f])`.
        table_rows: Rows of each table.
        fields: Whose vectors the entry is a factor of.
        tables: Which table it reads, the row `id // divisors % moduli + offsets`.
        divisors: One for each entry, as the following.
        moduli: What quotients are taken modulo.
        offsets: First row of the field.
    """

    sizes: list[int]
    table_rows: list[int]
    fields: list[int]
    tables: list[int]
    divisors: list[int]
    moduli: list[int]
    offsets: list[int]

    @classmethod
    def of(cls, groups: Sequence[tuple[FieldDigits, Sequence[int]]]) -> ProductEntries:
        """Those of several groups of fields, each with the fields' positions among all."""
        sizes = np.empty(sum(len(members) for _, members in groups), "int64")
        table_rows: list[int] = []
        entries = []
        for digits, members in groups:
            sizes[list(members)] = digits.sizes
            for j, position in zip(*np.nonzero(digits.rows), strict=True):
                parts = (digits.divisors, digits.moduli, digits.offsets)
                numbers = [int(part[j, position]) for part in parts]
                entries.append((members[position], len(table_rows) + int(j), *numbers))
            table_rows += digits.table_rows.tolist()
        return cls(sizes.tolist(), table_rows, *map(list, zip(*entries, strict=True)))


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
