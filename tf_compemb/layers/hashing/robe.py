"""ROBE: vectors are blocks at random places of one array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.arguments import flag, integer, positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.hashing._field_hash import field_hash
from tf_compemb.layers.pooled import Memory, PooledEmbedding, constants, memory_sizes
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import TableSpec


@method("robe")
class ROBEEmbedding(PooledEmbedding):
    """Random offset block embedding (ROBE-Z): blocks of Z numbers anywhere in one array.

    Formula: `e_f(i)_k = s_k M[(h(f, i, k // Z) + k mod Z) mod m]`, universal hashes
        `h(f, i, c) = (A f + B i + C c + D) mod P mod m`, signs `s_k = +-1` by another of them.
    Parameters: `m = d * ceil(n / collisions)` or `memory_size`, `n = input_dim`,
        `d = output_dim`, `Z = block_size`; for all fields together the sum of that.
    Served as: the array, float32; the hashes follow from the seed.
    Does not give: rows: a gradient has an entry for each number of a vector, and a lookup reads
        `d / Z` places.
    Reference: Desai, Chou, Shrivastava 2022, https://arxiv.org/abs/2108.02191, section 3. Sources
        differ at the array's end: the paper wraps around, the authors' code keeps blocks inside.

    Alone, a layer is an array of its own. In an `EmbeddingCollection` the fields' arrays are one,
    as long as theirs together; it starts with the variance of the largest field.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer numbers than a full table.
        block_size: Integer `Z`; at most `output_dim` is used. From 16 on a block is a cache line.
        memory_size: None, or Integer `m`, numbers that this field brings into the array.
        circular: Whether a block may wrap around the array's end.
        signs: Whether numbers are read with random signs.
        seed: Integer, chooses the hash functions; the same for all fields of an array.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = ROBEEmbedding(input_dim=1000, output_dim=8, memory_size=500)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters
    500
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        block_size: int = 16,
        memory_size: int | None = None,
        circular: bool = True,
        signs: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        self.block_size = min(positive_integer("block_size", block_size), self.output_dim)
        if memory_size is None:
            memory_size = self.output_dim * -(-self.input_dim // self.collisions)
        self.memory_size = positive_integer("memory_size", memory_size)
        self.circular = flag("circular", circular)
        self.signs = flag("signs", signs)
        self.seed = integer("seed", seed)
        if not self.circular and self.memory_size < self.block_size:
            raise ValueError(
                "`memory_size` must be at least `block_size` unless `circular`. Received: "
                f"memory_size={self.memory_size}, block_size={self.block_size}"
            )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any length from one vector's on."""
        return memory_sizes(input_dim, output_dim)

    @property
    def pool_key(self) -> tuple:
        """Blocks, hashes and initialisation."""
        initializer = str(self.get_config()["embeddings_initializer"])
        return (self.block_size, self.circular, self.signs, self.seed, initializer)

    def memory_spec(self) -> TableSpec:
        """An array: rows of one number."""
        return TableSpec(self.memory_size, 1, self.limit)

    def vectors_in(self, memory: Memory, ids: Any, fields: np.ndarray) -> Any:
        """The blocks' numbers, with their signs."""
        ids = ops.expand_dims(ids, -1)
        blocks = np.arange(-(-self.output_dim // self.block_size))
        starts = field_hash(self.seed, 0, ids, fields, blocks, memory.input_dim)
        places = self.places(starts, memory.rows)
        vectors = ops.squeeze(memory.read(places), -1)
        if not self.signs:
            return vectors
        parts = np.arange(self.output_dim)
        bits = field_hash(self.seed, 2, ids, fields, parts, memory.input_dim) % 2
        return vectors * ops.cast(2 * bits - 1, vectors.dtype)

    def places(self, hashed: Any, size: int) -> Any:
        """Where in an array of `size` numbers a vector is, (..., d), given hashes (..., blocks)."""
        offsets = np.arange(self.output_dim)
        block_of, within = offsets // self.block_size, offsets % self.block_size
        starts = hashed % (size if self.circular else size - self.block_size + 1)
        places = ops.take(starts, block_of, axis=-1) + constants(within)
        return places % size if self.circular else places

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "block_size": self.block_size,
            "memory_size": self.memory_size,
            "circular": self.circular,
            "signs": self.signs,
            "seed": self.seed,
        }
