"""Copy this file to begin a method. As it stands it is a full table with a scale a column."""

from __future__ import annotations

from typing import Any

from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.storage.table import Spec, TableSpec

# Uncomment in the copy, with the name that `--embedding` will use:
# @method("scaled")


class ScaledEmbedding(CompressedEmbedding):
    """One sentence: what it keeps and what a vector is made of.

    Formula: `e(i) = W[i] * s`, elementwise.
    Parameters: `n * d + d`, `n = input_dim`, `d = output_dim`.
    Served as: the table and the scales, float32.
    Does not give: compression.
    Reference: authors, year, link, equation.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> tuple(ScaledEmbedding(input_dim=10, output_dim=4)(np.array([1, 2])).shape)
    (2, 4)
    """

    def __init__(self, input_dim: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)

    def table_specs(self) -> dict[str, Spec]:
        """One row an id."""
        return {"rows_of_ids": TableSpec(self.input_dim, self.output_dim, self.limit)}

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """One scale a column."""
        return {"scale": ((self.output_dim,), "ones")}

    def lookup(self, ids: Any) -> Any:
        """The row, scaled."""
        return self.rows("rows_of_ids", ids) * self.scale

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return super().get_config()
