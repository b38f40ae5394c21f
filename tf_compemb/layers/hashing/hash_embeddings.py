"""Hash embeddings: a weighted sum of several shared rows, with weights of each id."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tf_compemb._keras import keras, ops
from tf_compemb.arguments import integer, positive_integer
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.registry import method
from tf_compemb.partitions import UniversalHash
from tf_compemb.partitions.universal_hash import nth_seed
from tf_compemb.storage.table import Spec, TableSpec


@method("hash_embeddings")
class HashEmbeddings(CompressedEmbedding):
    """Hash embeddings: k hash functions choose shared rows, k numbers of the id weigh them.

    Formula: `e(i) = sum_j p[i mod q, j] * E[h_j(i)]`, `h_j` universal hashes onto `m` rows.
    Parameters: `m * d + q * k`, `m = ceil(n / collisions)` or `num_buckets`, `k = num_hashes`,
        `q = num_importances`, by default `n = input_dim`; `d = output_dim`.
    Served as: the rows and the importances, float32; the hashes follow from the seed.
    Does not give: a size below `k / d` of the full table unless ids share importances too.
    Reference: Svenstrup et al. 2017, https://arxiv.org/abs/1709.03933, section 3. Importances
        start at 1 / sqrt(k) instead of near zero, which gives vectors the full table's variance.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer shared rows than ids.
        num_hashes: Integer `k`, rows of a vector.
        num_buckets: None, or Integer `m` instead of `ceil(n / collisions)`.
        num_importances: None for weights of every id's own, or Integer `q`: ids that are equal
            modulo `q` share theirs.
        seed: Integer, chooses the hash functions.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = HashEmbeddings(input_dim=1000, output_dim=8, num_buckets=50)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters == 50 * 8 + 1000 * 2
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        num_hashes: int = 2,
        num_buckets: int | None = None,
        num_importances: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        self.num_hashes = positive_integer("num_hashes", num_hashes)
        if num_buckets is None:
            num_buckets = -(-self.input_dim // self.collisions)
        if num_importances is None:
            num_importances = self.input_dim
        self.num_buckets = positive_integer("num_buckets", num_buckets)
        self.num_importances = positive_integer("num_importances", num_importances)
        self.seed = integer("seed", seed)
        self.hashes = tuple(
            UniversalHash(self.num_buckets, nth_seed(self.seed, j)) for j in range(self.num_hashes)
        )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Own importances while they take at most half of the bytes; else always half of them."""
        hashes = positive_integer("num_hashes", options.get("num_hashes", 2))
        fewest = -(-input_dim * hashes // output_dim)

        def half(number: int) -> dict[str, Any]:
            rows = number + 1
            return {"num_buckets": rows, "num_importances": max(1, rows * output_dim // hashes)}

        return [
            Settings(
                max(1, input_dim - fewest + 1),
                lambda number: {"num_buckets": fewest + number, "num_importances": input_dim},
            ),
            Settings(max(1, fewest - 1), half),
        ]

    def table_specs(self) -> dict[str, Spec]:
        """The shared rows and the importances."""
        start = keras.initializers.Constant(1 / math.sqrt(self.num_hashes))
        return {
            "shared": TableSpec(self.num_buckets, self.output_dim, self.limit),
            "importances": TableSpec(self.num_importances, self.num_hashes, 0.0, start),
        }

    def lookup(self, ids: Any) -> Any:
        """The weighted sum of the rows."""
        own = ids if self.num_importances >= self.input_dim else ids % self.num_importances
        importances = ops.expand_dims(self.rows("importances", own), -1)
        buckets = ops.stack([h.classes(ids, self.input_dim) for h in self.hashes], axis=-1)
        return ops.sum(self.rows("shared", buckets) * importances, axis=-2)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "num_hashes": self.num_hashes,
            "num_buckets": self.num_buckets,
            "num_importances": self.num_importances,
            "seed": self.seed,
        }
