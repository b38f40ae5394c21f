"""MEmCom: ids share a row, and each has a multiplier of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb.arguments import flag, positive_integer
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, TableSpec


@method("memcom")
class MEmComEmbedding(CompressedEmbedding):
    """MEmCom: a row that ids share, times a number of each id, plus another if wanted.

    Formula: `e(i) = U[i mod m] * V[i]`, or `U[i mod m] * V[i] + c[i]`, the same for every column.
    Parameters: `m * d + n`, with `bias` `m * d + 2 * n`; `m = ceil(n / collisions)` or
        `num_buckets`, `n = input_dim`, `d = output_dim`.
    Served as: the rows, the multipliers and the biases, float32.
    Does not give: a size below `1 / d` of the full table; directions of its own to an id: without
        a bias the vectors of ids that share a row are multiples of each other.
    Reference: Pansare et al. 2022, https://arxiv.org/abs/2203.10135, section 4.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        collisions: Integer, how many ids share a row of `U`.
        bias: Whether each id has a number that is added, too.
        num_buckets: None, or Integer `m` instead of `ceil(n / collisions)`.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = MEmComEmbedding(input_dim=1000, output_dim=8, collisions=10)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters == 100 * 8 + 1000
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        collisions: int = 4,
        bias: bool = False,
        num_buckets: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.collisions = positive_integer("collisions", collisions)
        if num_buckets is None:
            num_buckets = -(-self.input_dim // self.collisions)
        self.num_buckets = positive_integer("num_buckets", num_buckets)
        self.bias = flag("bias", bias)

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any number of shared rows."""
        return [Settings(input_dim, lambda number: {"num_buckets": number + 1})]

    def table_specs(self) -> dict[str, Spec]:
        """The shared rows, and a number or two for each id."""
        # Ones and zeros leave the rows' law as it is; ids part by their gradients.
        own = {"multipliers": TableSpec(self.input_dim, 1, 0.0, initializer="ones")}
        if self.bias:
            own["biases"] = TableSpec(self.input_dim, 1, 0.0)
        return {"shared": TableSpec(self.num_buckets, self.output_dim, self.limit), **own}

    def lookup(self, ids: Any) -> Any:
        """The shared row times the multiplier, plus the bias."""
        vectors = self.rows("shared", ids % self.num_buckets) * self.rows("multipliers", ids)
        return vectors + self.rows("biases", ids) if self.bias else vectors

    def start_from(self, table: np.ndarray) -> None:
        """The nearest rows of this form: in each bucket the best approximation of rank one."""
        biases = table.mean(axis=1, keepdims=True) * self.bias
        shared = np.zeros((self.num_buckets, self.output_dim))
        multipliers = np.ones((self.input_dim, 1))
        for bucket in range(min(self.num_buckets, self.input_dim)):
            members = slice(bucket, None, self.num_buckets)
            left, strengths, right = np.linalg.svd(
                table[members] - biases[members], full_matrices=False
            )
            # The share of the two factors is free: multipliers of root mean square one.
            scale = np.sqrt(len(left))
            shared[bucket] = right[0] * strengths[0] / scale
            multipliers[members, 0] = left[:, 0] * scale
        self.shared.assign(shared)
        self.multipliers.assign(multipliers)
        if self.bias:
            self.biases.assign(biases)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "collisions": self.collisions,
            "bias": self.bias,
            "num_buckets": self.num_buckets,
        }
