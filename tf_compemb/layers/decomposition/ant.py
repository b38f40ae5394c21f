"""ANT: sparse, non-negative combinations of a few anchors."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import LEGACY, gather_rows, id_dtype, in_training, keras, ops
from tf_compemb.arguments import finite_number, positive_integer
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.decomposition._anchors import anchors_of, combinations_of
from tf_compemb.layers.decomposition._factored import project
from tf_compemb.layers.decomposition._folded import FoldedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.storage.row_constraint import SparseRows, constrain
from tf_compemb.storage.table import Spec, StateSpec, TableSpec
from tf_compemb.storage.table_rows import table_of


@method("ant")
class ANTEmbedding(FoldedEmbedding):
    """Anchor and transform (ANT): each vector is a sparse, non-negative combination of anchors.

    Formula: `e(i) = T[i] A`, anchors `A` of shape (k, d), `T` of shape (n, k) without negative
        numbers and with at most `s` others than zero in a row.
    Parameters: `n * k + k * d`, `n = input_dim`, `d = output_dim`, `k = num_anchors`,
        `s = nonzeros`.
    Served as: the anchors, float32, and `T` in compressed rows: for each number that is not zero 5
        bytes (6 for more than 256 anchors), for each row 4 (8 from 2^31 numbers on); or all vectors
        as a table, where that is smaller. Before training, and in `for_budget`, `s` numbers a row
        are counted; afterwards those that are there.
    Does not give: a saving in training, where `T` is dense and has n k numbers; one beyond
        `4 d / (4 + 5 s)` in service.
    Reference: Liang et al. 2021, https://arxiv.org/abs/2003.08197, section 3. The proximal step
        `T <- max(T - r (g + penalty), 0)`, with gradient g and the optimiser's rate r of the
        number, is the step itself where the penalty is a part of the loss, and clipping after it,
        of the rows that the step wrote. The bound s on a row is ours: it makes the size known.

    In training the layer adds to the loss the mean over the ids that are looked up of `penalty *
    sum_k T[i, k]`, so that how frequent an id is does not change what is sparse.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        num_anchors: Integer `k`.
        nonzeros: Integer `s` up to `num_anchors`: a step keeps so many of a row, the largest.
        penalty: Float, what a sum of one in a row costs in the unit of the loss.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = ANTEmbedding(input_dim=1000, output_dim=16, num_anchors=20, nonzeros=3)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().inference_bytes == 1000 * (3 * 5 + 4) + 4 + 4 * 20 * 16
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_anchors: int = 16,
        nonzeros: int = 3,
        penalty: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.num_anchors = positive_integer("num_anchors", num_anchors)
        self.nonzeros = positive_integer("nonzeros", nonzeros)
        if self.nonzeros > self.num_anchors:
            raise ValueError(
                "`nonzeros` must be at most `num_anchors`. Received: "
                f"nonzeros={nonzeros}, num_anchors={num_anchors}"
            )
        self.penalty = finite_number("penalty", penalty)
        if self.penalty < 0:
            raise ValueError(f"`penalty` must not be negative. Received: penalty={penalty}")

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any number of nonzeros of 16 anchors, or of fewer where those are too many."""

        def arguments(anchors: int, number: int) -> dict[str, Any]:
            return {"num_anchors": anchors, "nonzeros": number + 1}

        for anchors in (16, 4, 1):
            count = options.get("num_anchors", anchors)
            yield Settings(count, functools.partial(arguments, anchors))

    def table_specs(self) -> dict[str, Spec]:
        """The combinations."""
        initializer = SparseUniform(self.limit, self.nonzeros)
        return {
            "transform": TableSpec(self.input_dim, self.num_anchors, self.limit, initializer),
        }

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """The anchors; of a variance that passes on that of a full table's numbers."""
        initializer = keras.initializers.RandomNormal(0.0, self.nonzeros**-0.5)
        return {"anchors": ((self.num_anchors, self.output_dim), initializer)}

    def build(self, input_shape: Any = None) -> None:
        """Creates the variables, with the constraint that the optimiser applies."""
        if self.built:
            return
        super().build(input_shape)
        constrain(self.transform, SparseRows(self.nonzeros))

    def lookup(self, ids: Any) -> Any:
        """The combination of the anchors."""
        rows = self.rows("transform", ids)
        if table_of(self.transform).is_deferred:
            # What an exact optimiser adds to a row for the steps it missed knows no constraint.
            rows = rows + ops.stop_gradient(SparseRows(self.nonzeros)(rows) - rows)
        if self.penalty and in_training():
            sums = ops.sum(ops.cast(rows, "float32"), axis=-1)
            self.add_loss(self.penalty * ops.mean(sums))
        return project(rows, ops.convert_to_tensor(self.anchors), self.compute_dtype)

    @property
    def num_stored(self) -> int:
        """How many numbers of the combinations are stored: one at least."""
        if not self.built:
            return self.nonzeros * self.input_dim
        return max(1, int(np.count_nonzero(ops.convert_to_numpy(self.transform))))

    @property
    def factor_bytes(self) -> int:
        """Bytes of the anchors and of the compressed rows."""
        return _ServedANT(self, self.num_stored, 1).footprint().training_bytes

    def served_factors(self) -> CompressedEmbedding:
        """The anchors and compressed rows."""
        transform = ops.convert_to_numpy(self.transform)
        rows, columns = np.nonzero(transform)
        counts = np.bincount(rows, minlength=self.input_dim)
        served = _ServedANT(self, max(1, len(rows)), max(1, int(counts.max())))
        served.build(None)
        if len(rows):
            served.values.assign(transform[rows, columns][:, None])
            served.columns.assign(columns)
        served.starts.assign(np.concatenate([[0], np.cumsum(counts)]))
        served.anchors.assign(ops.convert_to_numpy(self.anchors))
        return served

    def start_from(self, table: np.ndarray) -> None:
        """Anchors are the means of k clusters of rows; each row takes those that fit it best."""
        anchors = anchors_of(table, self.num_anchors)
        self.anchors.assign(anchors)
        self.transform.assign(combinations_of(table, anchors, self.nonzeros))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "num_anchors": self.num_anchors,
            "nonzeros": self.nonzeros,
            "penalty": self.penalty,
        }


class SparseUniform(keras.initializers.Initializer):  # type: ignore[misc, name-defined]
    """Draws from U(0, limit) where row i and column k have `(k - i) mod columns` below `nonzeros`.

    Args:
        limit: Float.
        nonzeros: Integer, numbers of a row that are not zero.
    """

    def __init__(self, limit: float, nonzeros: int) -> None:
        self.limit = limit
        self.nonzeros = nonzeros

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Values of `shape` (rows, columns)."""
        rows, columns = shape
        # Zero itself is left out: it would not be stored.
        uniform = keras.initializers.RandomUniform(1e-6 * self.limit, self.limit)(shape, dtype)
        place = (np.arange(columns) - np.arange(columns)[:, None]) % columns
        pattern = (place < self.nonzeros).astype("float32")
        whole, rest = divmod(int(rows), int(columns))
        mask = np.concatenate([np.tile(pattern, (whole, 1)), pattern[:rest]])
        return uniform * ops.cast(mask, dtype)


class _ServedANT(CompressedEmbedding):
    """What is served of an `ANTEmbedding`: anchors, and its combinations in compressed rows.

    Args:
        trained: The layer that this stands for.
        num_stored: How many numbers there are.
        longest: How many of them the longest row has.
    """

    def __init__(self, trained: ANTEmbedding, num_stored: int, longest: int) -> None:
        super().__init__(
            trained.input_dim,
            trained.output_dim,
            name=trained.name,
            combiner=trained.combiner,
            mask_zero=trained.mask_zero,
            dtype=trained._dtype_policy if LEGACY else trained.dtype_policy,
        )
        self.num_anchors = trained.num_anchors
        self.num_stored = num_stored
        self.longest = longest

    def table_specs(self) -> dict[str, Spec]:
        """Numbers row by row, their anchors, and where each row's begin; the end at the end."""
        columns = "uint8" if self.num_anchors <= 2**8 else "int16"
        starts = "int32" if self.num_stored < 2**31 else "int64"
        rows = self.input_dim + 1
        return {
            "values": TableSpec(self.num_stored, 1, 0.0),
            "columns": StateSpec((self.num_stored,), columns, lambda: np.zeros(self.num_stored)),
            "starts": StateSpec((rows,), starts, lambda: np.zeros(rows)),
        }

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """The anchors."""
        return {"anchors": ((self.num_anchors, self.output_dim), "zeros")}

    def lookup(self, ids: Any) -> Any:
        """The combination of the anchors of a row's numbers."""
        start = ops.cast(gather_rows(self.starts, ids), id_dtype())
        end = ops.cast(gather_rows(self.starts, ids + 1), id_dtype())
        place = ops.expand_dims(start, -1) + np.arange(self.longest)
        is_own = ops.cast(place < ops.expand_dims(end, -1), self.compute_dtype)
        place = ops.minimum(place, self.num_stored - 1)
        values = ops.squeeze(self.rows("values", place), -1) * is_own
        column = ops.cast(gather_rows(self.columns, place), "int32")
        parts = ops.take(
            ops.cast(ops.convert_to_tensor(self.anchors), self.compute_dtype), column, axis=0
        )
        return ops.sum(ops.expand_dims(values, -1) * parts, axis=1)
