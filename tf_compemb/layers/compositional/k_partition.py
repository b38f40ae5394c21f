"""Compositional embedding over any complementary partitions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_compemb.arguments import one_of, positive_integer
from tf_compemb.layers.budget import Settings, only
from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import (
    Partition,
    balanced,
    check_complementary,
    mixed_radix,
    partition_list,
    smallest_moduli,
)


@method("compositional")
class CompositionalEmbedding(PartitionedEmbedding):
    """Compositional embedding: one small table for each of k complementary partitions.

    Formula: `e(i) = W_1[p_1(i)] * ... * W_k[p_k(i)]`, elementwise; or their sum, or concatenation.
    Parameters: `sum_j m_j * d`, `m_j` classes in partition j, `d = output_dim`; the k-th part of
        that for "concat", whose tables are d / k wide.
    Served as: the k tables, float32, and the codes of `Codes` partitions.
    Does not give: independent vectors; ids that share a class move together in training. Many small
        tables save most and share most.
    Reference: Shi et al. 2020, https://arxiv.org/abs/1909.02107, sections 3 and 4.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        partitions: A list of partitions from `tf_compemb.partitions`; or Integer k for k balanced
            ones, about `input_dim ** (1 / k)` classes each.
        operation: "mult", "add", "concat", or "feature" for k vectors an id, shape (..., k, d).
        family: "mixed_radix" or "chinese_remainder", of balanced partitions.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    Raises:
        ValueError: The partitions are not complementary; the message names two ids that collide.

    >>> layer = CompositionalEmbedding(input_dim=1000, output_dim=8, partitions=3)
    >>> layer.footprint().parameters == (10 + 10 + 10) * 8
    True
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        partitions: int | Sequence[Partition | dict[str, Any]] = 3,
        operation: str = "mult",
        family: str = "mixed_radix",
        **kwargs: Any,
    ) -> None:
        self.family = one_of("family", family, ("mixed_radix", "chinese_remainder"))
        input_dim = positive_integer("input_dim", input_dim)
        if isinstance(partitions, (int, np.integer)):
            chosen = balanced(
                input_dim, positive_integer("partitions", partitions, most=64), family
            )
        else:
            chosen = partition_list("partitions", partitions)
            check_complementary(chosen, input_dim)
        super().__init__(
            input_dim,
            output_dim,
            partitions=chosen,
            table_names=[f"partition_{j}" for j in range(len(chosen))],
            operation=operation,
            **kwargs,
        )

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """As few partitions as fit; the first of them as large as fits, the others equal."""
        for k in range(2, max(2, (input_dim - 1).bit_length()) + 1):
            if options.get("operation") == "concat" and output_dim % k:
                continue
            if options.get("family", "mixed_radix") != "mixed_radix":
                yield only({"partitions": k})
                continue
            largest = smallest_moduli(input_dim, k)[0]
            digits = functools.partial(_unequal_digits, input_dim, k)
            yield Settings(input_dim - largest + 1, digits)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "partitions": [p.get_config() for p in self.partitions],
            "operation": self.operation,
            "family": self.family,
        }


def _unequal_digits(input_dim: int, k: int, excess: int) -> dict[str, Any]:
    """k digits, the first with so many classes more than equal digits need."""
    moduli = smallest_moduli(input_dim, k)
    if excess:
        first = moduli[0] + excess
        moduli = [first, *smallest_moduli(-(-input_dim // first), k - 1)]
    return {"partitions": [digit.get_config() for digit in mixed_radix(input_dim, moduli)]}
