"""MLET: a table wider than its vectors and one matrix in training, a plain table in service."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.arguments import positive_integer
from tf_compemb.layers.decomposition._factored import FactoredEmbedding
from tf_compemb.layers.registry import method


@method("mlet")
class MLETEmbedding(FactoredEmbedding):
    """Multi-layer embedding training: a wide table times one matrix, multiplied out for service.

    Formula: `e(i) = U[i] V`, `U` of shape (n, k), `V` of shape (k, d), `k = inner_dim`.
    Parameters: `n * k + k * d` in training, `n = input_dim`, `d = output_dim`; `n * d` in service.
    Served as: all vectors as one table, float32.
    Does not give: compression; training needs k / d times the memory of the table. The saving is
        that a smaller d may reach the same quality.
    Reference: Ghaemmaghami et al. 2020, https://arxiv.org/abs/2006.05623.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        inner_dim: Integer from `output_dim` on, numbers that each id has of its own in training;
            None for 4 times `output_dim`.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = MLETEmbedding(input_dim=1000, output_dim=16, inner_dim=64)
    >>> size = layer.footprint()
    >>> size.parameters == 1000 * 64 + 64 * 16, size.inference_bytes == 4 * 1000 * 16
    (True, True)
    """

    compresses = False

    def __init__(
        self, input_dim: int, output_dim: int, inner_dim: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            input_dim,
            output_dim,
            inner_dim=(
                4 * positive_integer("output_dim", output_dim) if inner_dim is None else inner_dim
            ),
            **kwargs,
        )
        if self.inner_dim < self.output_dim:
            raise ValueError(
                "`inner_dim` must be at least `output_dim`; a narrower product is a "
                f"LowRankEmbedding. Received: inner_dim={inner_dim}, output_dim={output_dim}"
            )

    def start_from(self, table: np.ndarray) -> None:
        """The table itself: the matrix stays as it was drawn, and the rows fit it."""
        projection = ops.convert_to_numpy(self.projection)
        self.rows_of_ids.assign(table @ np.linalg.pinv(projection))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {**super().get_config(), "inner_dim": self.inner_dim}
