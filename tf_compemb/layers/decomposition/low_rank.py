"""Low-rank embedding: a short row an id, and one matrix that widens them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb.arguments import positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.decomposition._factored import FactoredEmbedding, low_rank_factors
from tf_compemb.layers.registry import method


@method("low_rank")
class LowRankEmbedding(FactoredEmbedding):
    """Low-rank embedding: a short row an id, and one matrix that widens them all.

    Formula: `e(i) = U[i] V`, `U` of shape (n, r), `V` of shape (r, d).
    Parameters: `n * r + r * d`, `n = input_dim`, `d = output_dim`, `r = rank`.
    Served as: the two factors, float32; or all vectors as a table, where that is smaller.
    Does not give: more than d times smaller, since every id keeps a row of its own; independent
        vectors, since every step moves all of them through `V`.
    Reference: Ghaemmaghami et al. 2020, https://arxiv.org/abs/2006.05623, with r below d.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        rank: Integer up to `output_dim`, numbers that each id has of its own.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = LowRankEmbedding(input_dim=1000, output_dim=16, rank=4)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().parameters == 1000 * 4 + 4 * 16
    True
    """

    def __init__(self, input_dim: int, output_dim: int, rank: int = 4, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, inner_dim=positive_integer("rank", rank), **kwargs)
        if self.rank > self.output_dim:
            raise ValueError(
                "`rank` must be at most `output_dim`; a wider product is an MLETEmbedding. "
                f"Received: rank={rank}, output_dim={output_dim}"
            )

    @property
    def rank(self) -> int:
        """Numbers that each id has of its own."""
        return self.inner_dim

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any rank."""
        return [Settings(output_dim, lambda number: {"rank": number + 1})]

    def start_from(self, table: np.ndarray) -> None:
        """The nearest product in the sum of squares, by a singular value decomposition."""
        left, right = low_rank_factors(table, self.rank)
        self.rows_of_ids.assign(left)
        self.projection.assign(right)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {**super().get_config(), "rank": self.rank}
