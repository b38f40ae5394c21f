"""Which vectors of a collection's result are whose: counts, columns and their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.layers.base import CompressedEmbedding


def vectors_of(layer: CompressedEmbedding) -> int:
    """Vectors that a layer gives for an id: one, or k features."""
    return layer.vector_shape[0] if len(layer.vector_shape) == 2 else 1


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(vectors, output_dim) of (-1, fields, [k,] output_dim)."""
    return (shape[1] * (shape[2] if len(shape) == 4 else 1), shape[-1])


def columns(x: Any, members: Sequence[int]) -> Any:
    """The columns `members` of a matrix, as a slice where they follow each other."""
    first, count = members[0], len(members)
    if tuple(members) == tuple(range(first, first + count)):
        return x[:, first : first + count]
    return ops.take(x, np.asarray(members), axis=1)


def order_of(groups: Sequence[Sequence[int]], counts: Sequence[int]) -> list[int] | None:
    """Where each field's vectors are when the groups' stand side by side; None: in order.

    Args:
        groups: Fields of each group.
        counts: Vectors of each field.
    """
    fields = [field for members in groups for field in members]
    starts = dict(zip(fields, np.cumsum([0] + [counts[i] for i in fields]), strict=False))
    order = [int(starts[i]) + j for i, count in enumerate(counts) for j in range(count)]
    return None if order == sorted(order) else order
