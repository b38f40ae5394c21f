"""CAFE: rows for the ids that receive the largest gradients, found while training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, LEGACY, gather_rows, id_dtype, in_training, ops
from tf_compemb.arguments import finite_number, natural_number, positive_integer
from tf_compemb.footprint import Footprint
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.hashing._frequent_ids import FrequentIdsEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, StateSpec, TableSpec, read_rows
from tf_compemb.storage.table_rows import table_of

if BACKEND == "tensorflow":
    import tensorflow as tf

    from tf_compemb.layers.hashing._hot_sketch import Sketch

_SLOTS = 4
# An id, its score and its row, and the list of free rows: what the sketch keeps for each row.
_SKETCH_BYTES = 12 * _SLOTS + 4


@method("cafe")
class CAFEEmbedding(CompressedEmbedding):
    """CAFE: a sketch finds the important ids while training; they have rows, others share.

    Formula: `e(i) = F[row(i)]` for ids that the sketch holds with a row, else `T[i mod m]`.
    Parameters: `(r + m) * d`, `r = num_hot`, `m = num_buckets`, `d = output_dim`.
    Served as: both tables, float32, and 4 bytes for each row of `F` (8 from 2^31 ids on): the
        sketch stays behind.
    Does not give: a vector of its own to any other id; a sketch that learns elsewhere than on one
        TensorFlow device: under JAX and torch it stays as it was loaded, under MirroredStrategy
        training raises. A row that an important id has lost keeps its optimiser's state for the
        next one.
    Reference: Zhang et al. 2024, https://arxiv.org/abs/2312.03256, section 3. An id's importance in
        a step is the norm of its vectors' gradient over the mean norm of the batch. Equal ids of a
        batch count as one. A promoted id starts with the shared row that it had.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many times smaller than a full table all is in training, the sketch
            (52 bytes a row of `F`) included.
        hash_share: Float, share of the shared rows in that.
        num_hot: None, or Integer `r`; 0 is the hashing trick.
        num_buckets: None, or Integer `m`.
        threshold: Float, score from which an id is important: in mean gradients.
        decay: Float, by what all scores are multiplied each time that 10 thresholds a row have
            come in.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = CAFEEmbedding(input_dim=1000, output_dim=16, num_hot=20, num_buckets=30)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().parameters == (20 + 30) * 16
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        hash_share: float = 0.5,
        num_hot: int | None = None,
        num_buckets: int | None = None,
        threshold: float = 10.0,
        decay: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        self.hash_share = _in_range("hash_share", hash_share, 0, 1)
        self.threshold = _in_range("threshold", threshold, 0, 1e30)
        self.decay = _in_range("decay", decay, 0, 1)
        rows = -(-self.input_dim // self.collisions)
        if num_hot is None:
            row_bytes = 4 * self.output_dim
            num_hot = int(rows * (1 - hash_share) * row_bytes / (row_bytes + _SKETCH_BYTES))
        if num_buckets is None:
            num_buckets = max(1, int(rows * hash_share))
        self.num_hot = natural_number("num_hot", num_hot)
        if self.num_hot >= self.input_dim:
            raise ValueError(
                f"`num_hot` must be from 0 to below input_dim={self.input_dim}. "
                f"Received: num_hot={num_hot}"
            )
        self.num_buckets = positive_integer("num_buckets", num_buckets)

    @property
    def needs_one_device(self) -> bool:  # type: ignore[override]
        """Whether there is a sketch to follow the gradients."""
        return self.num_hot > 0

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """As many rows for important ids as shared ones, and one more of these where odd."""
        return [Settings(2 * input_dim - 1, _halves)]

    def table_specs(self) -> dict[str, Spec]:
        """The tables, and the sketch."""
        cold = TableSpec(self.num_buckets, self.output_dim, self.limit)
        if not self.num_hot:
            return {"cold": cold}
        rows, slots = self.num_hot, (self.num_hot, _SLOTS)
        ids = "int32" if self.input_dim < 2**31 else "int64"
        return {
            "cold": cold,
            "hot": TableSpec(rows, self.output_dim, self.limit),
            "sketch_ids": StateSpec(slots, ids, lambda: np.full(slots, -1)),
            "sketch_scores": StateSpec(slots, "float32", lambda: np.zeros(slots)),
            "sketch_rows": StateSpec(slots, "int32", lambda: np.zeros(slots)),
            "free_rows": StateSpec((rows,), "int32", lambda: np.arange(rows)[::-1]),
            "num_free": StateSpec((1,), "int32", lambda: np.asarray([rows])),
            "mass": StateSpec((1,), "float32", lambda: np.zeros(1)),
        }

    def footprint(self) -> Footprint:
        """Parameters and bytes; what is served has a map instead of the sketch."""
        size = super().footprint()
        map_bytes = self.num_hot * (4 if self.input_dim < 2**31 else 8)
        return Footprint(
            size.parameters,
            size.weight_bytes,
            size.index_bytes,
            size.weight_bytes + map_bytes,
            size.full_parameters,
        )

    def lookup(self, ids: Any) -> Any:
        """The own row of an important id, or the shared one."""
        cold_row = ids % self.num_buckets
        if not self.num_hot:
            return self.rows("cold", cold_row)
        row = self._own_row(ids)
        is_hot = row >= 0
        # Ids that need no row of a table read its first, of which nothing is used.
        hot = self.rows("hot", ops.where(is_hot, row, ops.zeros_like(row)))
        cold = self.rows("cold", ops.where(is_hot, ops.zeros_like(cold_row), cold_row))
        vectors = ops.where(ops.expand_dims(is_hot, -1), hot, cold)
        if BACKEND == "tensorflow" and in_training():
            return self._observed(vectors, ids)
        return vectors

    def _own_row(self, ids: Any) -> Any:
        """The row of each id in the hot table, or -1."""
        bucket = ids % self.num_hot
        known = ops.cast(gather_rows(self.sketch_ids, bucket), id_dtype())
        rows = ops.cast(gather_rows(self.sketch_rows, bucket), id_dtype())
        is_own = known == ops.expand_dims(ids, -1)
        return ops.sum(ops.where(is_own, rows, ops.zeros_like(rows)), axis=-1) - 1

    def _observed(self, vectors: Any, ids: Any) -> Any:
        """The vectors; their gradient goes on as it is, and into the sketch."""
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync > 1:
            raise NotImplementedError(
                f"{self.name}: CAFE's sketch follows the gradients of one device; train without "
                "a distribution strategy."
            )

        @tf.custom_gradient
        def observe(x: Any) -> Any:
            def gradient(upstream: Any) -> Any:
                norms = tf.norm(tf.cast(upstream, tf.float32), axis=-1)
                importance = tf.math.divide_no_nan(norms, tf.reduce_mean(norms))
                self._sketch().update(ids, importance, self._promote)
                return upstream

            return tf.identity(x), gradient

        return observe(vectors)

    def _sketch(self) -> Sketch:
        return Sketch(
            ids=_tensorflow_variable(self.sketch_ids),
            scores=_tensorflow_variable(self.sketch_scores),
            rows=_tensorflow_variable(self.sketch_rows),
            free_rows=_tensorflow_variable(self.free_rows),
            num_free=_tensorflow_variable(self.num_free),
            mass=_tensorflow_variable(self.mass),
            threshold=self.threshold,
            decay=self.decay,
        )

    def _promote(self, ids: Any, rows: Any) -> None:
        """Starts rows of the hot table with the shared rows, so that no vector jumps."""
        values = read_rows(self.cold, tf.cast(ids, id_dtype()) % self.num_buckets, "float32")
        table_of(self.hot).write(rows, values)

    def hot_ids(self) -> dict[int, int]:
        """The important ids and their rows in the hot table."""
        if not self.num_hot:
            return {}
        ids, rows = (ops.convert_to_numpy(v) for v in (self.sketch_ids, self.sketch_rows))
        has_row = rows > 0
        return dict(zip(ids[has_row].tolist(), (rows[has_row] - 1).tolist(), strict=True))

    def for_inference(self) -> CompressedEmbedding:
        """The tables as they are now, with a map of the important ids instead of the sketch."""
        if not self.num_hot:
            return self
        served = _ServedCAFE(self)
        served.build(None)
        rows = self.hot_ids()
        ids = sorted(rows)
        # Rows that nobody has are kept behind those that somebody has, at ids that do not exist.
        unused = sorted(set(range(self.num_hot)) - set(rows.values()))
        order = [rows[i] for i in ids] + unused
        served.frequent_ids.assign(np.asarray(ids + [self.input_dim] * len(unused)))
        served.hot.assign(ops.convert_to_numpy(self.hot)[order])
        served.cold.assign(ops.convert_to_numpy(self.cold))
        return served

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "hash_share": self.hash_share,
            "num_hot": self.num_hot,
            "num_buckets": self.num_buckets,
            "threshold": self.threshold,
            "decay": self.decay,
        }


class _ServedCAFE(FrequentIdsEmbedding):
    """What is served of a `CAFEEmbedding`: its tables, and a map of the ids that have a row.

    Args:
        trained: The layer that this stands for.
    """

    def __init__(self, trained: CAFEEmbedding) -> None:
        super().__init__(
            trained.input_dim,
            trained.output_dim,
            trained.num_hot,
            name=trained.name,
            combiner=trained.combiner,
            mask_zero=trained.mask_zero,
            dtype=trained._dtype_policy if LEGACY else trained.dtype_policy,
        )
        self.num_buckets = trained.num_buckets

    def table_specs(self) -> dict[str, Spec]:
        """Rows of the ids in their order, the shared rows, and the map."""
        return {
            "hot": TableSpec(self.num_frequent, self.output_dim, 0.0),
            "cold": TableSpec(self.num_buckets, self.output_dim, 0.0),
            **self.map_specs(),
        }

    def lookup(self, ids: Any) -> Any:
        """The own row, or the shared one."""
        row, has_own = self.own_row(ids, elsewhere=0)
        shared = self.rows("cold", ids % self.num_buckets)
        return ops.where(ops.expand_dims(has_own, -1), self.rows("hot", row), shared)


def _halves(number: int) -> dict[str, int]:
    rows = number + 1
    return {"num_hot": rows // 2, "num_buckets": rows - rows // 2}


def _in_range(name: str, value: float, low: float, high: float) -> float:
    number = finite_number(name, value)
    if not low < number <= high:
        raise ValueError(
            f"`{name}` must be above {low} and at most {high:g}. Received: {name}={value!r}"
        )
    return number


def _tensorflow_variable(variable: Any) -> Any:
    return variable if LEGACY else variable.value
