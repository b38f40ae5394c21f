"""Frequency-based double hashing: rows for frequent ids, two hashes for the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.arguments import integer, one_of, positive_integer
from tf_compemb.layers.budget import Settings, only
from tf_compemb.layers.hashing._frequent_ids import FrequentIdsEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import Partition, Quotient, Remainder, UniversalHash, smallest_modulus
from tf_compemb.partitions.universal_hash import nth_seed
from tf_compemb.storage.table import Spec, TableSpec, mean_rows

TAILS = ("double_hash", "qr")
_BACKFITTING_ROUNDS = 5


@method("double_hash")
class FrequencyDoubleHashEmbedding(FrequentIdsEmbedding):
    """Frequency-based double hashing (FDH): frequent ids have rows, others the sum of two.

    Formula: `e(i) = F[row(i)]` for the K most frequent ids, else `T_1[h_1(i)] + T_2[h_2(i)]`, with
        two universal hashes onto `m` rows; or for `tail="qr"` the remainder and the quotient by m.
    Parameters: `(K + 2 m) * d`, `d = output_dim`; for "qr" `(K + m + ceil(n / m)) * d`; `n * d` if
        `K = n`.
    Served as: the three tables, float32, and 4 bytes for each frequent id (8 from 2^31 ids on).
    Does not give: a vector of its own to every rare id: of N about `N^2 / (2 m^2)` pairs share
        both rows; with "qr" none.
    Reference: Zhang et al. 2020, https://arxiv.org/abs/2007.14523, section 3.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times fewer rows than ids in all. Half of the rows are of
            frequent ids; with "qr" all that the smallest two tail tables leave.
        num_frequent: None, or Integer `K`.
        num_buckets: None, or Integer `m`, rows of a tail table.
        tail: "double_hash" or "qr".
        seed: Integer, chooses the hash functions.
        frequencies: None where ids are numbered from the most frequent on; or how often training
            has each id, shape (input_dim,). Not in the configuration: what is kept of it is saved
            with the weights.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = FrequencyDoubleHashEmbedding(1000, 8, num_frequent=100, num_buckets=30)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters == (100 + 2 * 30) * 8, layer.footprint().index_bytes
    (True, 400)
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        num_frequent: int | None = None,
        num_buckets: int | None = None,
        tail: str = "double_hash",
        seed: int = 0,
        frequencies: Any = None,
        **kwargs: Any,
    ) -> None:
        self.collisions = positive_integer("collisions", collisions)
        rows = -(-positive_integer("input_dim", input_dim) // self.collisions)
        self.tail = one_of("tail", tail, TAILS)
        by_default = _split(input_dim, rows, tail)
        if num_frequent is None:
            num_frequent = by_default["num_frequent"]
        if num_buckets is None:
            num_buckets = by_default["num_buckets"]
        super().__init__(input_dim, output_dim, num_frequent, frequencies, **kwargs)
        self.num_buckets = positive_integer("num_buckets", num_buckets)
        self.seed = integer("seed", seed)
        self.tail_partitions: tuple[Partition, Partition] = (
            (Remainder(self.num_buckets), Quotient(self.num_buckets))
            if tail == "qr"
            else (
                UniversalHash(self.num_buckets, nth_seed(self.seed, 0)),
                UniversalHash(self.num_buckets, nth_seed(self.seed, 1)),
            )
        )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Every id a row if that fits; else any number of rows, split as by default."""
        tail = options.get("tail", "double_hash")
        fewest = 2
        if tail == "qr":
            modulus = smallest_modulus(input_dim)
            fewest = modulus + -(-input_dim // modulus)
        # With a map, this many rows are still smaller than a full table.
        most = (input_dim * output_dim - 1) // (output_dim + 1)
        return [
            only({"num_frequent": input_dim}),
            Settings(
                max(1, most - fewest + 1),
                lambda number: _split(input_dim, fewest + number, tail),
            ),
        ]

    def table_specs(self) -> dict[str, Spec]:
        """Rows of the frequent ids in the order of the ids, two tail tables, and the map."""
        specs: dict[str, Spec] = {}
        if self.num_frequent:
            specs["frequent"] = TableSpec(self.num_frequent, self.output_dim, self.limit)
        if self.num_frequent < self.input_dim:
            for j, partition in enumerate(self.tail_partitions):
                rows = partition.num_classes(self.input_dim)
                limit = self.limit / math.sqrt(2)
                specs[f"tail_{j}"] = TableSpec(rows, self.output_dim, limit)
        return {**specs, **self.map_specs()}

    def lookup(self, ids: Any) -> Any:
        """The own row, or the sum of the tail's two."""
        if self.num_frequent == self.input_dim:
            return self.rows("frequent", ids)
        if self.num_frequent == 0:
            return self._tail_rows(*self._tail_classes(ids))
        row, has_own = self.own_row(ids, elsewhere=0)
        # Ids that need no row of a table read its first, of which nothing is used: a lazy
        # optimiser then visits one row needlessly and not many.
        classes = [ops.where(has_own, ops.zeros_like(c), c) for c in self._tail_classes(ids)]
        own = self.rows("frequent", row)
        return ops.where(ops.expand_dims(has_own, -1), own, self._tail_rows(*classes))

    def _tail_classes(self, ids: Any) -> list[Any]:
        return [partition.classes(ids, self.input_dim) for partition in self.tail_partitions]

    def _tail_rows(self, first: Any, second: Any) -> Any:
        return self.rows("tail_0", first) + self.rows("tail_1", second)

    def start_from(self, table: np.ndarray) -> None:
        """Frequent ids start with their rows, the tail's tables with near the least squares."""
        frequent, rare = self.frequent_and_rare()
        if frequent.size:
            self.frequent.assign(table[frequent])
        if not rare.size:
            return
        classes = [np.asarray(c) for c in self._tail_classes(rare)]
        tables = [np.zeros(tuple(t.shape)) for t in (self.tail_0, self.tail_1)]
        for _ in range(_BACKFITTING_ROUNDS):
            for j in (0, 1):
                missing = table[rare] - tables[1 - j][classes[1 - j]]
                tables[j] = mean_rows(missing, classes[j], len(tables[j]))
        self.tail_0.assign(tables[0])
        self.tail_1.assign(tables[1])

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible; `frequencies` are in the weights."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "num_frequent": self.num_frequent,
            "num_buckets": self.num_buckets,
            "tail": self.tail,
            "seed": self.seed,
        }


def _split(input_dim: int, rows: int, tail: str) -> dict[str, int]:
    """How many frequent ids and buckets so many rows in all are."""
    if rows >= input_dim:
        return {"num_frequent": input_dim, "num_buckets": 1}
    if tail == "qr":
        buckets = smallest_modulus(input_dim)
        return {
            "num_frequent": max(0, rows - buckets - -(-input_dim // buckets)),
            "num_buckets": buckets,
        }
    buckets = max(1, -(-rows // 4))
    return {"num_frequent": max(0, rows - 2 * buckets), "num_buckets": buckets}
