"""Bags: several ids in one place (ragged, sparse or padded), pooled to one vector.

Each id is composed first and pooled after. Pooling the factors first would be another function for
every operation but addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_compemb._keras import BACKEND, ops

if BACKEND == "tensorflow":
    import tensorflow as tf

COMBINERS = ("sum", "mean", "sqrtn")

Lookup = Callable[[Any], Any]


def is_ragged(x: Any) -> bool:
    """Whether `x` is a tf.RaggedTensor."""
    return BACKEND == "tensorflow" and isinstance(x, tf.RaggedTensor)


def is_sparse(x: Any) -> bool:
    """Whether `x` is a tf.SparseTensor."""
    return BACKEND == "tensorflow" and isinstance(x, tf.SparseTensor)


def check_combiner(combiner: str | None) -> None:
    """Raises if `combiner` is not one of the known ones or None.

    Raises:
        ValueError: The message lists the known combiners.
    """
    if combiner is not None and combiner not in COMBINERS:
        raise ValueError(
            f"`combiner` must be None or one of {', '.join(map(repr, COMBINERS))}. "
            f"Received: combiner={combiner!r}"
        )


def embed(
    lookup: Lookup,
    ids: Any,
    weights: Any = None,
    combiner: str | None = None,
    padding: Callable[[Any], Any] | None = None,
) -> Any:
    """Vectors of ids of any form, pooled over the innermost axis if there is a combiner.

    Args:
        lookup: Dense ids of any shape to vectors, shape + vector shape.
        ids: Dense tensor (..., L), tf.RaggedTensor, or tf.SparseTensor of rank 2.
        weights: None, or a weight for each id, in the form of `ids`.
        combiner: None (a vector an id), "sum", "mean" (divides by the sum of the weights) or
            "sqrtn" (divides by the root of the sum of their squares). An empty bag gives zeros.
        padding: None, or a function of dense ids that is True where an id is only padding; such
            ids take no part and receive no gradient.

    Raises:
        ValueError: The forms of ids, weights and combiner do not go together.
    """
    if combiner is None and (weights is not None or is_sparse(ids)):
        what = "`weights`" if weights is not None else "sparse ids"
        raise ValueError(f"{what} need a combiner: pass combiner='sum', 'mean' or 'sqrtn'.")
    if is_sparse(ids):
        return _sparse(lookup, ids, weights, str(combiner), padding)
    if is_ragged(ids):
        return _ragged(lookup, ids, weights, combiner, padding)
    if combiner is None:
        return lookup(ids)
    return _dense(lookup, ids, weights, combiner, padding)


def _dense(lookup: Lookup, ids: Any, weights: Any, combiner: str, padding: Any) -> Any:
    if len(ids.shape) == 0:
        raise ValueError(
            f"combiner={combiner!r} pools the last axis of the ids; a scalar has none."
        )
    vectors = lookup(ids)
    share = _shares(ids, weights, padding, vectors.dtype)
    trailing = len(vectors.shape) - len(ids.shape)
    axis = len(ids.shape) - 1
    pooled = ops.sum(vectors * _expand(share, trailing), axis=axis)
    norm = _norm(ops.sum(share, axis=-1), ops.sum(share * share, axis=-1), combiner)
    return pooled if norm is None else pooled * _expand(norm, trailing)


def _ragged(lookup: Lookup, ids: Any, weights: Any, combiner: str | None, padding: Any) -> Any:
    if combiner is None:
        return ids.with_flat_values(lookup(ids.flat_values))
    if ids.ragged_rank > 1:
        inner = None if weights is None else weights.values
        return ids.with_values(_ragged(lookup, ids.values, inner, combiner, padding))
    flat_weights = None if weights is None else weights.flat_values
    return _segments(
        lookup, ids.values, flat_weights, ids.value_rowids(), ids.nrows(), combiner, padding
    )


def _sparse(lookup: Lookup, ids: Any, weights: Any, combiner: str, padding: Any) -> Any:
    flat_weights = None if weights is None else weights.values
    rows, count = ids.indices[:, 0], ids.dense_shape[0]
    return _segments(lookup, ids.values, flat_weights, rows, count, combiner, padding)


def _segments(
    lookup: Lookup, ids: Any, weights: Any, rows: Any, count: Any, combiner: str, padding: Any
) -> Any:
    vectors = lookup(ids)
    share = _shares(ids, weights, padding, vectors.dtype)
    trailing = len(vectors.shape) - 1
    pooled = tf.math.unsorted_segment_sum(vectors * _expand(share, trailing), rows, count)
    total = tf.math.unsorted_segment_sum(share, rows, count)
    squares = tf.math.unsorted_segment_sum(share * share, rows, count)
    norm = _norm(total, squares, combiner)
    return pooled if norm is None else pooled * _expand(norm, trailing)


def _shares(ids: Any, weights: Any, padding: Any, dtype: Any) -> Any:
    share = ops.ones_like(ids, dtype=dtype) if weights is None else ops.cast(weights, dtype)
    return share if padding is None else ops.where(padding(ids), ops.zeros_like(share), share)


def _norm(total: Any, squares: Any, combiner: str) -> Any:
    if combiner == "sum":
        return None
    divisor = total if combiner == "mean" else ops.sqrt(squares)
    # An empty bag divides by nothing and stays zero.
    return ops.where(divisor == 0, ops.zeros_like(divisor), 1 / ops.where(divisor == 0, 1, divisor))


def _expand(x: Any, trailing: int) -> Any:
    for _ in range(trailing):
        x = ops.expand_dims(x, -1)
    return x
