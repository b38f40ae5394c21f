"""What the methods share whose vectors are a row of one table times one small matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._keras import keras, ops
from tf_compemb.arguments import positive_integer
from tf_compemb.layers.decomposition._folded import FoldedEmbedding
from tf_compemb.storage.table import Spec, TableSpec


class FactoredEmbedding(FoldedEmbedding):
    """Base of the methods with `e(i) = rows_of_ids[i] @ projection`.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        inner_dim: Integer, numbers in a row of the table.
        **kwargs: Of `CompressedEmbedding`.
    """

    def __init__(self, input_dim: int, output_dim: int, *, inner_dim: int, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.inner_dim = positive_integer("inner_dim", inner_dim)

    def table_specs(self) -> dict[str, Spec]:
        """One short row an id."""
        return {"rows_of_ids": TableSpec(self.input_dim, self.inner_dim, self.limit)}

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """The matrix; of a variance that passes on that of the rows."""
        initializer = keras.initializers.RandomNormal(0.0, self.inner_dim**-0.5)
        return {"projection": ((self.inner_dim, self.output_dim), initializer)}

    def lookup(self, ids: Any) -> Any:
        """The row times the matrix."""
        projection = ops.convert_to_tensor(self.projection)
        return project(self.rows("rows_of_ids", ids), projection, self.compute_dtype)


def project(rows: Any, projection: Any, dtype: str) -> Any:
    """`rows @ projection` in the compute type."""
    # Keras' operations on the torch backend bring float64 back as float32.
    return ops.cast(ops.matmul(rows, ops.cast(projection, dtype)), dtype)


def low_rank_factors(table: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrays (n, rank) and (rank, d) whose product is the nearest to a table (n, d).

    Beyond the table's own rank the factors are zero on one side only, so that training moves them.
    """
    left, values, right = np.linalg.svd(table, full_matrices=False)
    kept = min(rank, len(values))
    rows = np.zeros((len(table), rank), "float32")
    rows[:, :kept] = left[:, :kept] * values[:kept]
    projection = np.ones((rank, table.shape[1]), "float32")
    projection[:kept] = right[:kept]
    return rows, projection
