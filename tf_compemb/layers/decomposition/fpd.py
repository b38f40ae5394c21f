"""FPD, our reading: a small core an id, and one tensor that they share."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import keras, ops
from tf_compemb.arguments import positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.decomposition._factored import low_rank_factors, project
from tf_compemb.layers.decomposition._folded import FoldedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import Quotient, Remainder, smallest_modulus
from tf_compemb.storage.table import Spec, TableSpec


@method("fpd")
class FPDEmbedding(FoldedEmbedding):
    """Decomposed embedding of the compressed-layer review (FPD), our reading of it.

    Formula: `e(i)_c = sum_a sum_b G[i, a, b] U[a, b, c]`; with collisions
        `G[i] = R[i mod m] * Q[i // m]`, elementwise.
    Parameters: `n * r * p + r * p * d`, `n = input_dim`, `d = output_dim`, `r = rank`,
        `p = inner_rank`; with `m = collisions`, `(m + ceil(n / m)) * r * p + r * p * d`.
    Served as: the factors, float32; or all vectors as a table, where that is smaller.
    Does not give: more than `d / (r * p)` times smaller without collisions. `(r, p)` and
        `(r * p, 1)` span the same vectors, and p = 1 is a LowRankEmbedding.
    Reference: Hajgató 2023, https://arxiv.org/abs/2306.13724, which states sizes `O(n r p)` and no
        formula. One core an id is our reading of it, and the collisions are ours.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        rank: Integer, first side of a core.
        inner_rank: Integer, second side of a core.
        collisions: None for a core of its own to every id; or Integer `m`: cores are products of a
            row of two tables, by remainder and quotient.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = FPDEmbedding(input_dim=1000, output_dim=128)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 128)
    >>> layer.footprint().parameters == 1000 * 8 + 8 * 128
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        rank: int = 8,
        inner_rank: int = 1,
        collisions: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.rank = positive_integer("rank", rank)
        self.inner_rank = positive_integer("inner_rank", inner_rank)
        self.collisions = None
        if collisions is not None:
            self.collisions = positive_integer("collisions", collisions)

    @property
    def _core_size(self) -> int:
        return self.rank * self.inner_rank

    def table_specs(self) -> dict[str, Spec]:
        """A core an id, or the two tables whose products they are."""
        if self.collisions is None:
            return {"cores": TableSpec(self.input_dim, self._core_size, self.limit)}
        # The product of two such numbers has the variance of one of U(-limit, limit).
        limit = math.sqrt(3) * (3 * self.input_dim) ** -0.25
        partitions = {
            "remainder": Remainder(self.collisions),
            "quotient": Quotient(self.collisions),
        }
        return {
            name: TableSpec(partition.num_classes(self.input_dim), self._core_size, limit)
            for name, partition in partitions.items()
        }

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """The shared tensor; of a variance that passes on that of the cores."""
        initializer = keras.initializers.RandomNormal(0.0, self._core_size**-0.5)
        return {"tensor": ((self.rank, self.inner_rank, self.output_dim), initializer)}

    def lookup(self, ids: Any) -> Any:
        """The core times the shared tensor, over both of its sides."""
        if self.collisions is None:
            cores = self.rows("cores", ids)
        else:
            cores = self.rows("remainder", ids % self.collisions)
            cores = cores * self.rows("quotient", ids // self.collisions)
        matrix = ops.reshape(self.tensor, (self._core_size, self.output_dim))
        return project(cores, matrix, self.compute_dtype)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any rank with a core for every id; then any collisions, large cores before small ones."""
        widest = max(1, output_dim // positive_integer("inner_rank", options.get("inner_rank", 1)))
        yield Settings(widest, lambda number: {"rank": number + 1})
        smallest = smallest_modulus(input_dim)

        def with_collisions(rank: int, number: int) -> dict[str, Any]:
            return {"rank": rank, "collisions": smallest + number}

        for rank in (8, 4, 2, 1):
            if rank <= widest:
                count = input_dim - smallest + 1
                yield Settings(count, functools.partial(with_collisions, rank))

    def start_from(self, table: np.ndarray) -> None:
        """The nearest product in the sum of squares, by a singular value decomposition.

        Raises:
            ValueError: The layer has collisions, whose products of rows no such formula gives.
        """
        if self.collisions is not None:
            raise ValueError(
                "FPDEmbedding starts from a table without collisions only. "
                f"Received: collisions={self.collisions}"
            )
        cores, matrix = low_rank_factors(table, self._core_size)
        self.cores.assign(cores)
        self.tensor.assign(matrix.reshape(self.tensor.shape))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "rank": self.rank,
            "inner_rank": self.inner_rank,
            "collisions": self.collisions,
        }
