"""Unified embedding: all fields in one table, a vector from several of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.arguments import integer, positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.pooled import Memory, PooledEmbedding, constants
from tf_compemb.layers.registry import method
from tf_compemb.partitions.universal_hash import draw_coefficients, nth_seed, universal_hash
from tf_compemb.storage.table import TableSpec


@method("unified")
class UnifiedEmbedding(PooledEmbedding):
    """Unified embedding (feature multiplexing): one table for all fields, hashed by field.

    Formula: `e_f(i) = concat_j T[h_{f,j}(i)]`, j = 1..c chunks of `d / c` numbers, `h_{f,j}` a
        universal hash of each field and chunk onto the rows of `T`.
    Parameters: `m * d / c`, `m = c * ceil(n / collisions)` or `num_buckets`, `c = num_chunks`,
        `n = input_dim`, `d = output_dim`; for all fields together the sum of that.
    Served as: the table, float32; the hashes follow from the seed.
    Does not give: a vector of its own to every id, though two ids seldom share all chunks.
    Reference: Coleman et al. 2023, https://arxiv.org/abs/2305.12102, section 3. Fields are
        numbered and not named, so that chunk 10 follows chunk 9.

    Alone, a layer is a table of its own. In an `EmbeddingCollection` the fields' tables are one,
    with as many rows as theirs together; it starts with the variance of the largest field.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer numbers than a full table.
        num_chunks: Integer `c`, a divisor of `output_dim`.
        num_buckets: None, or Integer `m`, rows that this field brings into the table.
        seed: Integer, chooses the hash functions; the same for all fields of a table.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = UnifiedEmbedding(input_dim=1000, output_dim=8, num_buckets=300, num_chunks=2)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters == 300 * 4
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        num_chunks: int = 2,
        num_buckets: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        self.num_chunks = positive_integer("num_chunks", num_chunks)
        if self.output_dim % self.num_chunks:
            raise ValueError(
                "`output_dim` must be a multiple of `num_chunks`. "
                f"Received: output_dim={output_dim}, num_chunks={num_chunks}"
            )
        if num_buckets is None:
            num_buckets = self.num_chunks * -(-self.input_dim // self.collisions)
        self.num_buckets = positive_integer("num_buckets", num_buckets)
        self.seed = integer("seed", seed)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any number of rows."""
        most = input_dim * positive_integer("num_chunks", options.get("num_chunks", 2))
        return [Settings(most, lambda number: {"num_buckets": number + 1})]

    @property
    def pool_key(self) -> tuple:
        """Chunks, hashes and initialisation."""
        initializer = str(self.get_config()["embeddings_initializer"])
        return (self.num_chunks, self.seed, initializer)

    def memory_spec(self) -> TableSpec:
        """Rows of one chunk."""
        return TableSpec(self.num_buckets, self.output_dim // self.num_chunks, self.limit)

    def vectors_in(self, memory: Memory, ids: Any, fields: np.ndarray) -> Any:
        """The chunks' rows, side by side."""
        functions = fields[:, None] * self.num_chunks + np.arange(self.num_chunks)
        drawn = [draw_coefficients(nth_seed(self.seed, int(n))) for n in functions.ravel()]
        shape = functions.shape
        low, high, shift = (constants(np.reshape(c, shape)) for c in zip(*drawn, strict=True))
        hashed = universal_hash(ops.expand_dims(ids, -1), (low, high, shift), memory.input_dim)
        rows = memory.read(hashed % memory.rows)
        return ops.reshape(rows, (-1, len(fields), self.output_dim))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "num_chunks": self.num_chunks,
            "num_buckets": self.num_buckets,
            "seed": self.seed,
        }
