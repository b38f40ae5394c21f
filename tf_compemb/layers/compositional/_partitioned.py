"""What every method over partitions shares: one table a partition, and an operation on the rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from tf_compemb._keras import gather_rows, id_dtype, ops
from tf_compemb.arguments import one_of
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.field_digits import FieldDigits
from tf_compemb.native_kernels import may_read
from tf_compemb.partitions import Codes, Digit, Partition
from tf_compemb.storage.table import CodeSpec, Spec, TableSpec, read_products

OPERATIONS = ("mult", "add", "concat", "feature")


def check_operation(operation: str, output_dim: int, count: int) -> None:
    """Raises if the operation is unknown or cannot make vectors of that width.

    Raises:
        ValueError: The message says which operations, or which widths, there are.
    """
    one_of("operation", operation, OPERATIONS)
    if operation == "concat" and output_dim % count:
        raise ValueError(
            "`output_dim` must be a multiple of the number of partitions for operation='concat'. "
            f"Received: output_dim={output_dim}, {count} partitions"
        )


def initial_limit(operation: str, input_dim: int, count: int) -> float:
    """Bound of the uniform law of each factor that gives the result the full table's variance.

    A sum of k factors adds their variances; a product multiplies them.
    """
    if operation == "mult":
        return math.sqrt(3) * (3 * input_dim) ** (-1 / (2 * count))
    limit = 1 / math.sqrt(input_dim)
    return limit / math.sqrt(count) if operation == "add" else limit


def combine(operation: str, factors: Sequence[Any]) -> Any:
    """One vector of the factors' rows, each (..., width)."""
    if len(factors) == 1 and operation != "feature":
        return factors[0]
    if operation == "mult":
        return functools.reduce(lambda x, y: x * y, factors)
    if operation == "add":
        return functools.reduce(lambda x, y: x + y, factors)
    if operation == "concat":
        return ops.concatenate(factors, axis=-1)
    return ops.stack(factors, axis=-2)


def classes_of(layer: CompressedEmbedding, partition: Partition, codes: str, ids: Any) -> Any:
    """The class of each id: computed, or read from the layer's variable named `codes`."""
    if isinstance(partition, Codes):
        return ops.cast(gather_rows(getattr(layer, codes), ids), id_dtype())
    return partition.classes(ids, layer.input_dim)


class PartitionedEmbedding(CompressedEmbedding):
    """Base of the methods that read one row for each partition and combine them.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        partitions: The partitions, in the order in which `concat` and `feature` use them.
        table_names: Name of each partition's table.
        operation: "mult", "add", "concat" or "feature".
        **kwargs: Of `CompressedEmbedding`.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        partitions: Sequence[Partition],
        table_names: Sequence[str],
        operation: str = "mult",
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        check_operation(operation, self.output_dim, len(partitions))
        self.operation = operation
        self._partitions = tuple(partitions)
        self._table_names = tuple(table_names)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions of the ids, one for each table."""
        return self._partitions

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(output_dim,), or (k, output_dim) under operation="feature"."""
        if self.operation == "feature":
            return (len(self._partitions), self.output_dim)
        return (self.output_dim,)

    @property
    def factor_width(self) -> int:
        """Width of each table."""
        if self.operation == "concat":
            return self.output_dim // len(self._partitions)
        return self.output_dim

    def table_specs(self) -> dict[str, Spec]:
        """One table a partition, and the codes of partitions that are stored."""
        limit = initial_limit(self.operation, self.input_dim, len(self._partitions))
        specs: dict[str, Spec] = {}
        for name, partition in zip(self._table_names, self._partitions, strict=True):
            classes = partition.num_classes(self.input_dim)
            specs[name] = TableSpec(classes, self.factor_width, limit)
            if isinstance(partition, Codes):
                specs[f"{name}_codes"] = CodeSpec(partition.codes, classes)
        return specs

    def lookup(self, ids: Any) -> Any:
        """Reads each partition's row and combines them."""
        vectors = self._products(ids)
        if vectors is not None:
            return vectors
        factors = [
            self.rows(name, classes_of(self, partition, f"{name}_codes", ids))
            for name, partition in zip(self._table_names, self._partitions, strict=True)
        ]
        return combine(self.operation, factors)

    def _products(self, ids: Any) -> Any:
        """The vectors by `read_products`, or None where that does not make them."""
        several_digits = len(self._partitions) > 1 and all(
            isinstance(partition, Digit) for partition in self._partitions
        )
        if self.operation != "mult" or not several_digits or not may_read():
            return None
        digits = FieldDigits.of([(self.input_dim, self._partitions)])
        tables = [getattr(self, name) for name in self._table_names]
        column = ops.reshape(ids, (-1, 1))
        vectors = read_products(tables, column, [(digits, [0])], self.compute_dtype)
        if vectors is None:
            return None
        return ops.reshape(vectors, (*ops.shape(ids), self.output_dim))
