"""The hashing trick: ids that collide share a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb.arguments import integer, one_of, positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import Partition, Remainder, UniversalHash
from tf_compemb.storage.table import mean_rows


@method("hash")
class HashEmbedding(PartitionedEmbedding):
    """Hashing trick: one table of `ceil(n / c)` rows, shared by the ids that collide.

    Formula: `e(i) = W[h(i)]`, `h(i) = i mod m` or `((a i + b) mod P) mod m`.
    Parameters: `m * d`, `m = ceil(n / c)` or `num_buckets`, `n = input_dim`, `d = output_dim`,
        `c = collisions`.
    Served as: the table, float32; the universal hash follows from its seed.
    Does not give: a vector of its own to every id; about `c` ids share each row.
    Reference: Weinberger et al. 2009, https://arxiv.org/abs/0902.2206; Shi et al. 2020,
        https://arxiv.org/abs/1909.02107, algorithm 1.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer rows than ids. Above `input_dim` one row is left.
        hash_function: "remainder", or "universal": a random function of Carter and Wegman's family,
            which keeps no order of the ids.
        seed: Integer, chooses the universal function; the remainder has none.
        num_buckets: None, or Integer `m`, rows of the table instead of `ceil(n / collisions)`.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = HashEmbedding(input_dim=10, output_dim=8, collisions=3)
    >>> tuple(layer(np.array([1, 5, 9])).shape)  # ids 1, 5 and 9 share row 1 of 4
    (3, 8)
    >>> layer.footprint().parameters
    32
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        hash_function: str = "remainder",
        seed: int = 0,
        num_buckets: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.collisions = positive_integer("collisions", collisions)
        rows = -(-positive_integer("input_dim", input_dim) // self.collisions)
        if num_buckets is not None:
            rows = positive_integer("num_buckets", num_buckets)
        self.num_buckets = rows
        self.hash_function = one_of("hash_function", hash_function, ("remainder", "universal"))
        self.seed = integer("seed", seed)
        partition: Partition = Remainder(rows)
        if hash_function == "universal":
            partition = UniversalHash(rows, self.seed)
        super().__init__(
            input_dim, output_dim, partitions=[partition], table_names=["embeddings"], **kwargs
        )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any number of rows."""
        return [Settings(input_dim, lambda number: {"num_buckets": number + 1})]

    def start_from(self, table: np.ndarray) -> None:
        """Each row starts as the mean of the rows that share it."""
        (partition,) = self.partitions
        classes = partition.classes(np.arange(self.input_dim), self.input_dim)
        self.embeddings.assign(mean_rows(table, classes, self.num_buckets))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "hash_function": self.hash_function,
            "seed": self.seed,
            "num_buckets": self.num_buckets,
        }
