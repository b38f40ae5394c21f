"""TT-Rec: the table as a tensor train, a product of a row of each of a few small cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.arguments import natural_number, positive_integer
from tf_compemb.layers.decomposition._tensor_train import train_of_table
from tf_compemb.layers.decomposition._train_layer import TensorTrainEmbedding
from tf_compemb.layers.hashing._frequent_ids import FrequentIdsEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, TableSpec


@method("tt")
class TTEmbedding(TensorTrainEmbedding, FrequentIdsEmbedding):
    """TT-Rec: the table as a tensor train, a product of a row of each of a few small cores.

    Formula: `e(i) = G_1[i_1] G_2[i_2] ... G_s[i_s]`, digits of i, the most significant first;
        `G_k[i_k]` of shape (R_{k-1}, d_k R_k), the result row-major in the columns of the cores.
        `e(i) = W[row(i)]` for the K most frequent ids.
    Parameters: `sum_k R_{k-1} * n_k * d_k * R_k + K * d`, `prod n_k >= n`, `prod d_k = d`,
        `R_0 = R_s = 1`, `K = num_frequent`, `n = input_dim`, `d = output_dim`.
    Served as: the cores and frequent rows, float32, and 4 bytes for each frequent id (8 from 2^31
        ids on); or all vectors as a table, where that is smaller.
    Does not give: independent vectors; ids that share a digit share a row of that core. A lookup
        costs about `d R^2` multiplications instead of a copy.
    Reference: Yin et al. 2021, https://arxiv.org/abs/2101.11714.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        rank: Integer, cut to the largest that adds anything; or a list of `num_cores - 1`.
        num_cores: Integer, how many cores; that of the factors if those are given.
        row_factors: None, or a list of the rows of the cores, product at least `input_dim`.
        column_factors: None, or a list of the columns of the cores, product `output_dim`.
        num_frequent: Integer `K`, how many of the most frequent ids (all, if there are fewer) have
            a trained row of their own instead. In the paper that is a cache which refills from the
            cores and forgets what its rows learned; here the ids are chosen once and the rows stay.
        frequencies: None where ids are numbered from the most frequent on; or how often training
            has each id, shape (input_dim,). Not in the configuration: what is kept of it is saved
            with the weights.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = TTEmbedding(input_dim=1_000_000, output_dim=16, rank=16)
    >>> tuple(layer(np.array([[1, 2], [3, 999_999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().parameters  # of 16,000,000
    60800
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        rank: int | Sequence[int] = 16,
        num_cores: int = 3,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
        num_frequent: int = 0,
        frequencies: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_dim,
            output_dim,
            rank=rank,
            num_cores=num_cores,
            row_factors=row_factors,
            column_factors=column_factors,
            # One number for all fields of a collection is more than the ids of some.
            num_frequent=min(
                natural_number("num_frequent", num_frequent),
                positive_integer("input_dim", input_dim),
            ),
            frequencies=frequencies,
            **kwargs,
        )

    def table_specs(self) -> dict[str, Spec]:
        """One table a core, and the rows of frequent ids with their map."""
        specs = super().table_specs()
        if self.num_frequent:
            specs["frequent"] = TableSpec(self.num_frequent, self.output_dim, self.limit)
        return {**specs, **self.map_specs()}

    def lookup(self, ids: Any) -> Any:
        """The product of the cores' rows, or an own row."""
        vectors = super().lookup(ids)
        if not self.num_frequent:
            return vectors
        row, has_own = self.own_row(ids, elsewhere=0)
        return ops.where(has_own[:, None], self.rows("frequent", row), vectors)

    def start_from(self, table: np.ndarray) -> None:
        """Cores near the table, by singular values of one unfolding after the other (TT-SVD)."""
        for k, core in enumerate(train_of_table(table, self.shape_of_train)):
            getattr(self, f"core_{k}").assign(core)
        if self.num_frequent:
            self.frequent.assign(table[self.frequent_and_rare()[0]])

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {**super().get_config(), "num_frequent": self.num_frequent}
