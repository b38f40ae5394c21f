"""LMA: ids that occur in the same rows share numbers of one memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import id_dtype, ops
from tf_compemb.arguments import integer, natural_number, positive_integer
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.hashing import _minhash
from tf_compemb.layers.hashing._field_hash import field_hash
from tf_compemb.layers.pooled import Memory, PooledEmbedding, constants, memory_sizes
from tf_compemb.layers.registry import method
from tf_compemb.partitions.universal_hash import (
    PRIME,
    draw_coefficients,
    nth_seed,
    universal_hash,
)
from tf_compemb.storage.table import StateSpec, TableSpec


@method("lma")
class LMAEmbedding(PooledEmbedding):
    """Locality-sensitive memory allocation: ids of the same rows read the same numbers.

    Formula: `e(i)_k = M[h_k(i) mod m]`, `h_k(i) = (A key_k(i) + B k + C) mod P` for ids with a
        signature, whose key is `K = key_length` of their `num_minhashes` minhashes of 4 bits; for
        all others `h_k(i) = (A f + B i + C k + D) mod P`, `f` the number of the field. Two
        signatures whose ids have a share J of their rows in common lead to the same number with
        probability `g + (1 - g) / m`, `g = (J + (1 - J) / 16)^K`.
    Parameters: `m = d * ceil(n / collisions)` or `memory_size`, `n = input_dim`,
        `d = output_dim`; for all fields together the sum of that.
    Served as: the memory, float32, and `4 + num_minhashes / 2` bytes (8 for the 4 from 2^31 ids on)
        for each of `num_signatures` ids, rounded up to a multiple of 4.
    Does not give: anything beyond ROBE with blocks of one number where no sample is given, and to a
        single field that has one id a row: its ids share no rows, and what is shared is chance.
    Reference: Desai et al. 2021, https://arxiv.org/abs/2103.06124. There each id has a signature;
        here those in the most sampled rows have, and rare ones cost nothing.

    Alone, a layer is a memory of its own. In an `EmbeddingCollection` the fields' memories are one,
    as long as theirs together, so that ids of several fields share; it starts with the variance of
    the largest field.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer numbers than a full table.
        memory_size: None, or Integer `m`, numbers that this field brings into the memory.
        num_minhashes: Even Integer, minhashes of a signature.
        key_length: Integer `K` up to `num_minhashes`: the larger, the nearer to 1 must J be.
        num_signatures: Integer, how many ids can have a signature: those in the most rows of the
            sample, in two or more. Cut to the vectors in the memory and to `input_dim`; 0 is ROBE.
        sampled_ids: None, or the ids that this field has in a sample of training rows, shape
            (rows,) or (rows, ids of a row); of all fields of a memory the same rows. Not in the
            configuration: what is kept of it is saved with the weights.
        seed: Integer, chooses all hash functions; the same for all fields of a memory.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = LMAEmbedding(1000, 8, memory_size=500, sampled_ids=[3, 3, 5, 5, 5, 9])
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> size = layer.footprint()  # 62 vectors, so signatures of 64 ids
    >>> size.parameters, size.index_bytes == 64 * (4 + 8)
    (500, True)
    """

    needs_sampled_ids = True

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        memory_size: int | None = None,
        num_minhashes: int = 16,
        key_length: int = 8,
        num_signatures: int = 65_536,
        sampled_ids: Any = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        if memory_size is None:
            memory_size = self.output_dim * -(-self.input_dim // self.collisions)
        self.memory_size = positive_integer("memory_size", memory_size)
        self.num_minhashes = positive_integer("num_minhashes", num_minhashes)
        self.key_length = positive_integer("key_length", key_length)
        if self.num_minhashes % 2 or self.key_length > self.num_minhashes:
            raise ValueError(
                "`num_minhashes` must be even and at least `key_length`. Received: "
                f"num_minhashes={num_minhashes}, key_length={key_length}"
            )
        self.num_signatures = natural_number("num_signatures", num_signatures)
        self.seed = integer("seed", seed)
        self._sample = np.zeros((0, 1), "int32")
        if sampled_ids is not None:
            self._sample = _minhash.checked_sample(sampled_ids, self.input_dim)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any length from one vector's on, with as many signatures as the memory has vectors."""
        return memory_sizes(input_dim, output_dim)

    @property
    def num_buckets(self) -> int:
        """Into how many buckets of `_minhash.WAYS` the ids with a signature fall."""
        vectors = self.memory_size // self.output_dim
        return math.ceil(min(self.num_signatures, self.input_dim, vectors) / _minhash.WAYS)

    @property
    def pool_key(self) -> tuple:
        """Signatures, hashes and initialisation."""
        kept = tuple((spec.dtype, spec.shape[1:]) for spec in self.state_specs().values())
        initializer = str(self.get_config()["embeddings_initializer"])
        return (kept, self.num_minhashes, self.key_length, self.seed, initializer)

    def memory_spec(self) -> TableSpec:
        """An array: rows of one number."""
        return TableSpec(self.memory_size, 1, self.limit)

    def state_specs(self) -> dict[str, StateSpec]:
        """Which ids have a signature, bucket by bucket, and the signatures."""
        if not self.num_buckets:
            return {}
        shape = (self.num_buckets, _minhash.WAYS)
        ids = "int32" if self.input_dim < 2**31 else "int64"
        return {
            "signed_ids": StateSpec(shape, ids, self._signed_ids),
            "signatures": StateSpec((*shape, self.num_minhashes // 2), "uint8", self._signatures),
        }

    def _signed_ids(self) -> np.ndarray:
        return _minhash.signed_ids(self._sample, self.num_buckets)

    def _signatures(self) -> np.ndarray:
        wanted = self._signed_ids()
        return _minhash.signatures(wanted, self._sample, self.num_minhashes, self.seed)

    def vectors_in(self, memory: Memory, ids: Any, fields: np.ndarray) -> Any:
        """Numbers at the hashes of the keys, or of the ids that have none."""
        numbers = np.arange(self.output_dim)
        one = ops.expand_dims(ids, -1)
        hashed = field_hash(self.seed, 0, one, fields, numbers, memory.input_dim)
        if memory.state:
            minhashes, is_signed = self._minhashes_of(memory, ids)
            hashed = ops.where(is_signed, self._hashed_keys(minhashes), hashed)
        return ops.squeeze(memory.read(hashed % memory.rows), -1)

    def _minhashes_of(self, memory: Memory, ids: Any) -> tuple[Any, Any]:
        """Minhashes (m, fields, num_minhashes) of ids, and whether they have any (..., 1).

        In float32: bytes and their halves are exact in it.
        """
        known, packed = memory.state["signed_ids"], memory.state["signatures"]
        bucket = ids % constants(known.counts)
        is_own = ops.cast(known.read(bucket), id_dtype()) == ops.expand_dims(ids, -1)
        own = ops.cast(ops.expand_dims(is_own, -1), "float32")
        signature = ops.sum(ops.cast(packed.read(bucket), "float32") * own, axis=2)
        upper = ops.floor(signature / 2**_minhash.BITS)
        lower = signature - upper * 2**_minhash.BITS
        return ops.concatenate([lower, upper], axis=-1), ops.any(is_own, axis=-1, keepdims=True)

    def _hashed_keys(self, minhashes: Any) -> Any:
        """`(A key + B k + C) mod P` of each number k of a vector, by the parts of the keys."""
        numbers = np.arange(self.output_dim)
        slots = _minhash.draw_slots(len(numbers), self.key_length, self.num_minhashes, self.seed)
        of_key, of_number, shift = draw_coefficients(nth_seed(self.seed, 2))
        hashed = constants(np.asarray([(of_number * int(k) + shift) % PRIME for k in numbers]))
        for p, weights in enumerate(_minhash.key_weights(slots, self.num_minhashes)):
            part = ops.cast(ops.matmul(minhashes, weights), id_dtype())
            coefficient = of_key * 2 ** (16 * p) % PRIME
            hashed = universal_hash(part, (coefficient, 1, hashed), 2**16)
        return hashed

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible; `sampled_ids` are in the weights."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "memory_size": self.memory_size,
            "num_minhashes": self.num_minhashes,
            "key_length": self.key_length,
            "num_signatures": self.num_signatures,
            "seed": self.seed,
        }
