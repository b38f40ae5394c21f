"""The frequency threshold: rows for frequent ids, one row for all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb.arguments import positive_integer
from tf_compemb.layers.budget import Settings, only
from tf_compemb.layers.hashing._frequent_ids import FrequentIdsEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, TableSpec


@method("frequency_threshold")
class FrequencyThresholdEmbedding(FrequentIdsEmbedding):
    """Frequency threshold: the most frequent ids have rows of their own, all others share one.

    The baseline that every method has to beat: it needs nothing but a count of the ids.

    Formula: `e(i) = W[row(i)]` for the K most frequent ids, `e(i) = W[K]` for all others.
    Parameters: `(K + 1) * d`, `K = num_frequent`, `d = output_dim`; `n * d` if `K = n`.
    Served as: the table, float32, and 4 bytes for each frequent id (8 from 2^31 ids on).
    Does not give: anything that tells rare ids apart.
    Reference: the common minimum count of a vocabulary, here by size; compared as a baseline in
        Zhang et al. 2020, https://arxiv.org/abs/2007.14523.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer rows than ids: `K + 1 = ceil(n / collisions)`.
        num_frequent: None, or Integer `K` instead.
        frequencies: None where ids are numbered from the most frequent on; or how often training
            has each id, shape (input_dim,). Not in the configuration: what is kept of it is saved
            with the weights.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = FrequencyThresholdEmbedding(4, 8, num_frequent=2, frequencies=[7, 0, 1, 9])
    >>> tuple(layer(np.array([0, 1, 2, 3])).shape)  # ids 1 and 2 share a row
    (4, 8)
    >>> layer.footprint().parameters, layer.footprint().index_bytes
    (24, 8)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        num_frequent: int | None = None,
        frequencies: Any = None,
        **kwargs: Any,
    ) -> None:
        self.collisions = positive_integer("collisions", collisions)
        if num_frequent is None:
            rows = -(-positive_integer("input_dim", input_dim) // self.collisions)
            num_frequent = input_dim if rows == input_dim else rows - 1
        super().__init__(input_dim, output_dim, num_frequent, frequencies, **kwargs)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Every id a row if that fits; else any number of frequent ids that needs less."""
        # With a map and a common row, this many frequent ids are still smaller than a full table.
        most = max(0, (input_dim * output_dim - output_dim - 1) // (output_dim + 1))
        return [
            only({"num_frequent": input_dim}),
            Settings(most + 1, lambda number: {"num_frequent": number}),
        ]

    def table_specs(self) -> dict[str, Spec]:
        """Rows of the frequent ids in the order of the ids, the common row, and the map."""
        rows = min(self.num_frequent + 1, self.input_dim)
        table = TableSpec(rows, self.output_dim, self.limit)
        return {"embeddings": table, **self.map_specs()}

    def lookup(self, ids: Any) -> Any:
        """The own row, or the common one after them."""
        row, _ = self.own_row(ids, elsewhere=self.num_frequent)
        return self.rows("embeddings", row)

    def start_from(self, table: np.ndarray) -> None:
        """Frequent ids start with their rows, the common row as the mean of the others."""
        frequent, rare = self.frequent_and_rare()
        common = table[rare].mean(axis=0, keepdims=True) if rare.size else table[:0]
        self.embeddings.assign(np.concatenate([table[frequent], common]))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible; `frequencies` are in the weights."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "num_frequent": self.num_frequent,
        }
