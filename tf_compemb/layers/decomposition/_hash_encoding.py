"""Many hashes of an id as numbers: what a network over hashes reads instead of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import id_dtype, ops
from tf_compemb.arguments import integer, one_of, positive_integer
from tf_compemb.partitions.universal_hash import PRIME, universal_hash
from tf_compemb.storage.table import StateSpec

_KINDS = ("uniform", "gaussian")


class HashEncoding:
    """`num_hashes` numbers of an id, in tensors and in NumPy alike.

    Args:
        kind: "uniform": a bucket number as one in [-1, 1]; "gaussian": Box and Muller's two
            standard normal numbers of the buckets of two hashes.
        num_hashes: Integer, even for "gaussian".
        num_buckets: Integer from 2 to 2**24, how many values a hash has.
        seed: Integer, chooses the hashes.
        input_dim: Integer, ids are in `[0, input_dim)`.

    Raises:
        ValueError: Arguments out of range.
    """

    def __init__(
        self, kind: str, num_hashes: int, num_buckets: int, seed: int, input_dim: int
    ) -> None:
        self.kind = one_of("encoding", kind, _KINDS)
        self.num_hashes = positive_integer("num_hashes", num_hashes)
        self.num_buckets = positive_integer("num_buckets", num_buckets)
        self.seed = integer("seed", seed)
        self._input_dim = input_dim
        if kind == "gaussian" and num_hashes % 2:
            raise ValueError(
                "`num_hashes` must be even for encoding='gaussian', which makes two numbers of two "
                f"hashes. Received: num_hashes={num_hashes}"
            )
        if not 2 <= num_buckets <= 2**24:
            raise ValueError(
                "`num_buckets` must be from 2 to 2**24, above which float32 skips integers. "
                f"Received: num_buckets={num_buckets}"
            )

    @property
    def coefficients(self) -> np.ndarray:
        """Rows: multiplier of the low 30 bits of ids, of the high bits if some, addend."""
        draws = np.random.Philox(key=self.seed % 2**64).random_raw((3, self.num_hashes))
        low, high = 1 + draws[:2] % np.uint64(PRIME - 1)
        addend = draws[2] % np.uint64(PRIME)
        rows = [low, addend] if self._input_dim <= 2**30 else [low, high, addend]
        return np.stack(rows).astype("int64")

    @property
    def spec(self) -> StateSpec:
        """The coefficients as a layer keeps them; they are below 2**31."""
        rows = 2 if self._input_dim <= 2**30 else 3
        return StateSpec((rows, self.num_hashes), "int32", lambda: self.coefficients)

    def of_tensor(self, ids: Any, coefficients: Any) -> Any:
        """Float32 (m, num_hashes) of an id tensor (m,).

        Args:
            ids: Integer tensor (m,).
            coefficients: The variable that `spec` made.
        """
        stored = ops.cast(ops.convert_to_tensor(coefficients), id_dtype())
        rows = [stored[r : r + 1] for r in range(stored.shape[0])]
        return self._numbers(ops.cast(self._buckets(ids, rows), "float32"), ops)

    def of_array(self, ids: np.ndarray) -> np.ndarray:
        """Float32 (m, num_hashes) of NumPy ids (m,)."""
        buckets = self._buckets(ids, list(self.coefficients[:, None, :]))
        return self._numbers(buckets.astype("float32"), np)

    def _buckets(self, ids: Any, coefficients: Sequence[Any]) -> Any:
        """Integers (m, num_hashes) in `[0, num_buckets)`."""
        low, *high, addend = coefficients
        functions = (low, high[0] if high else 0, addend)
        return universal_hash(ids[:, None], functions, self._input_dim) % self.num_buckets

    def _numbers(self, buckets: Any, numpy: Any) -> Any:
        """Bucket numbers as the network reads them, in NumPy or Keras' operations."""
        if self.kind == "uniform":
            return buckets * (2 / (self.num_buckets - 1)) - 1
        half = self.num_hashes // 2
        # Halfway into each bucket, so that no logarithm is infinite.
        radius = numpy.sqrt(-2 * numpy.log((buckets[:, :half] + 0.5) / self.num_buckets))
        angle = buckets[:, half:] * (2 * math.pi / self.num_buckets)
        return numpy.concatenate([radius * numpy.cos(angle), radius * numpy.sin(angle)], axis=1)
