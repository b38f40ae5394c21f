"""Tables: how many rows, how wide, how initialised, and the one way to read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.native_kernels import may_read
from tf_compemb.storage.table_rows import table_of
from tf_compemb.storage.uniform_rows import UniformRows

if TYPE_CHECKING:
    from tf_compemb._keras import Layer
    from tf_compemb.layers.field_digits import FieldDigits


@dataclass(frozen=True)
class TableSpec:
    """A table that a method wants: `rows x width` numbers, by default drawn from U(-limit, limit).

    A storage decides how a row is kept; here it is float32. What a method sees is the same under
    every storage: rows in, vectors of the compute type out.

    Attributes:
        rows: Number of rows.
        width: Numbers in a row.
        limit: Bound of the uniform initialiser; 0 starts at zero.
        initializer: None, or what draws the numbers instead.
    """

    rows: int
    width: int
    limit: float
    initializer: Any = None

    @property
    def parameters(self) -> int:
        """Trained numbers of the table."""
        return self.rows * self.width

    @property
    def bytes(self) -> int:
        """Bytes of the table in float32."""
        return 4 * self.parameters

    def build(self, layer: Layer, name: str, initializer: Any = None) -> Any:
        """Adds the table's variable to a layer and returns it."""
        if initializer is None:
            initializer = self.initializer or UniformRows([(self.rows, self.limit)])
        variable = layer.add_exact_weight(
            name, (self.rows, self.width), initializer, "float32", trainable=True
        )
        table_of(variable)
        return variable


@dataclass(frozen=True)
class CodeSpec:
    """A stored, untrained column of class numbers, one for each id, in the narrowest integer.

    Attributes:
        codes: Integer array of shape (input_dim,).
        num_classes: Codes are in `[0, num_classes)`.
    """

    codes: np.ndarray
    num_classes: int

    @property
    def dtype(self) -> str:
        """The narrowest integer type that every runtime can gather."""
        if self.num_classes <= 2**8:
            return "uint8"
        return "int16" if self.num_classes <= 2**15 else "int32"

    @property
    def bytes(self) -> int:
        """Bytes of the stored codes."""
        return self.codes.size * np.dtype(self.dtype).itemsize

    def build(self, layer: Layer, name: str) -> Any:
        """Adds the codes to a layer as an untrained variable and returns it."""
        state = StateSpec(self.codes.shape, self.dtype, lambda: self.codes)
        return state.build(layer, name)


@dataclass(frozen=True)
class StateSpec:
    """What a method keeps and does not train: maps, counters. It is saved with the weights.

    Attributes:
        shape: Of the variable.
        dtype: Name of its type.
        values: Gives an array of that shape to start with, when the variable is made.
        averaged: Whether training moves it. Each replica then has its own, and their mean is read.
    """

    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], np.ndarray]
    averaged: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of the variable."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def build(self, layer: Layer, name: str) -> Any:
        """Adds the variable to a layer, untrained, and returns it."""
        return layer.add_exact_weight(
            name,
            self.shape,
            lambda shape, dtype=None: ops.convert_to_tensor(self.values().astype(self.dtype)),
            self.dtype,
            trainable=False,
            averaged=self.averaged,
        )


# What a method may ask for.
Spec = TableSpec | CodeSpec | StateSpec


def mean_rows(table: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """The mean of the rows of each class, (count, width); zeros for a class without rows.

    >>> mean_rows(np.array([[1.0], [2.0], [4.0]]), np.array([0, 2, 2]), 3).tolist()
    [[1.0], [0.0], [3.0]]
    """
    sums = np.zeros((count, table.shape[1]))
    np.add.at(sums, classes, table)
    members = np.bincount(classes, minlength=count)[:, None]
    return sums / np.maximum(members, 1)


def read_rows(
    variable: Any,
    ids: Any,
    dtype: str,
    neutral: float | None = None,
) -> Any:
    """Rows of a table as vectors of the compute type: the door through which rows are read.

    Args:
        variable: The table's variable, shape (rows, width).
        ids: Integer tensor of any shape, row numbers.
        dtype: Compute type of the layer. Only the rows read are cast, never a large table.
        neutral: None, or what the row after the last holds, an untrained row of one number.
            For small tables.
    """
    return table_of(variable).read(ids, dtype, neutral)


def read_products(
    variables: Sequence[Any],
    ids: Any,
    groups: Sequence[tuple[FieldDigits, Sequence[int]]],
    dtype: str,
    message: str = "",
) -> Any:
    """Vectors (batch, fields, width), each the product of a row of one or more tables.

    Args:
        variables: The tables of all groups.
        ids: Integer tensor (batch, fields).
        groups: For groups of fields, which of their tables' rows are an id's, and which fields.
        dtype: Compute type of the layers.
        message: What to say of ids outside a field's range, which are refused.

    Returns:
        The vectors, or None where rows must be read and multiplied one table after the other:
        without the compiled kernels, and where `native_kernels.may_read` says no.
    """
    if dtype != "float32" or not may_read():
        return None
    tables = [table_of(variable) for variable in variables]
    if any(table.served_rows is not None or table.is_deferred for table in tables):
        return None
    from tf_compemb.native_kernels.reading import products_by_kernel

    return products_by_kernel([table.raw_variable for table in tables], ids, groups, message)
