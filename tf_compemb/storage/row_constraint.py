"""Constraints of single rows, which an optimiser can apply to the rows that it writes."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, keras, ops
from tf_compemb.storage.table_rows import Table


class RowConstraint(keras.constraints.Constraint):  # type: ignore[misc, name-defined]
    """Base of the constraints under which each row of a table depends on itself alone.

    It must be a projection: what it leaves, it leaves as it is. Stock optimisers then apply it to
    whole tables, as any constraint, and those of `tf_compemb.optimizers` to the rows that they
    write, with the same result.
    """


class SparseRows(RowConstraint):
    """No number below zero, and at most some above it in a row: the nearest such row.

    Args:
        nonzeros: Integer, at most how many of a row stay, the largest; of equals the first.

    >>> found = SparseRows(nonzeros=2)(np.array([[0.25, -0.2, 0.1, 0.75], [0.5, 0.5, 0.5, 0.0]]))
    >>> np.asarray(found).tolist()
    [[0.25, 0.0, 0.0, 0.75], [0.5, 0.5, 0.0, 0.0]]
    """

    def __init__(self, nonzeros: int) -> None:
        self.nonzeros = nonzeros

    def __call__(self, rows: Any) -> Any:
        """Rows (..., width) as the constraint leaves them."""
        rows = ops.relu(ops.convert_to_tensor(rows))
        if self.nonzeros >= rows.shape[-1]:
            return rows
        least = ops.top_k(rows, self.nonzeros)[0][..., -1:]
        larger, equal = rows > least, rows == least
        places = self.nonzeros - ops.sum(ops.cast(larger, "int32"), axis=-1, keepdims=True)
        is_kept = larger | (equal & (ops.cumsum(ops.cast(equal, "int32"), axis=-1) <= places))
        return ops.where(is_kept, rows, ops.zeros_like(rows))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {"nonzeros": self.nonzeros}


def constrain(variable: Any, constraint: RowConstraint | None) -> None:
    """Gives a variable the constraint that stock optimisers apply after each step, or none."""
    if LEGACY:
        getattr(variable, "_primary", variable)._constraint = constraint
    else:
        variable.constraint = constraint


def taken_constraint(table: Table) -> RowConstraint | None:
    """The constraint of a table's rows, which from now on its row optimiser applies, or None.

    Where gradients are dense, outside TensorFlow, Keras goes on applying it.

    Raises:
        ValueError: The table has a constraint that could not be applied by rows.
    """
    constraint = getattr(table.variable, "constraint", None)
    if constraint is None:
        return table.row_constraint
    if not isinstance(constraint, RowConstraint):
        raise ValueError(
            f"The table {table.variable.name} has a constraint, which would visit every row at "
            "every step. Remove the constraint."
        )
    if BACKEND != "tensorflow":
        return None
    table.row_constraint = constraint
    constrain(table.variable, None)
    return constraint
