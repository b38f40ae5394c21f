"""Bags: several ids in one place (ragged, sparse or padded), pooled to one vector.

Each id is composed first and pooled after. Pooling the factors first would be another function for
every operation but addition. Sums are float32 whatever the compute type, and cast once: a bfloat16
that counts ones ends at 256.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tf_compemb._keras import BACKEND, ops
from tf_compemb.arguments import shown
from tf_compemb.layers.bag_forms import check_forms, checked_sparse, is_ragged, is_sparse, paired
from tf_compemb.layers.ids import type_name

if BACKEND == "tensorflow":
    import tensorflow as tf

COMBINERS = ("sum", "mean", "sqrtn")

Lookup = Callable[[Any], Any]


def check_combiner(combiner: str | None) -> None:
    """Raises if `combiner` is not one of the known ones or None.

    Raises:
        ValueError: The message lists the known combiners.
    """
    if combiner is not None and combiner not in COMBINERS:
        raise ValueError(
            f"`combiner` must be None or one of {', '.join(map(repr, COMBINERS))}. "
            f"Received: combiner={shown(combiner)}"
        )


def embed(
    name: str,
    lookup: Lookup,
    ids: Any,
    weights: Any = None,
    combiner: str | None = None,
    padding: Callable[[Any], Any] | None = None,
) -> Any:
    """Vectors of ids of any form, pooled over the innermost axis if there is a combiner.

    Args:
        name: Of the layer, for messages.
        lookup: Dense ids of any shape to vectors, shape + vector shape.
        ids: Dense tensor (..., L), tf.RaggedTensor, or tf.SparseTensor of rank 2.
        weights: None, or a weight for each id, in the form of `ids`.
        combiner: None (a vector an id), "sum", "mean" (divides by the sum of the weights) or
            "sqrtn" (divides by the root of the sum of their squares). An empty bag gives zeros, and
            so does one with nothing to divide by.
        padding: None, or a function of dense ids that is True where an id is only padding; such
            ids take no part and receive no gradient.

    Raises:
        TypeError: The weights are not numbers.
        ValueError: The forms of ids, weights and combiner do not go together.
    """
    check_forms(name, ids, weights, combiner)
    if weights is not None:
        weights = paired(name, ids, weights)
    if is_sparse(ids):
        return _sparse(lookup, checked_sparse(name, ids), weights, str(combiner), padding)
    if is_ragged(ids):
        return _ragged(lookup, ids, weights, combiner, padding)
    if combiner is None:
        return lookup(ids)
    return _dense(lookup, ids, weights, combiner, padding)


def _dense(lookup: Lookup, ids: Any, weights: Any, combiner: str, padding: Any) -> Any:
    axis = len(ids.shape) - 1
    return _pooled(
        lookup(ids), ids, weights, combiner, padding, lambda numbers: ops.sum(numbers, axis=axis)
    )


def _ragged(lookup: Lookup, ids: Any, weights: Any, combiner: str | None, padding: Any) -> Any:
    if combiner is None:
        return ids.with_flat_values(lookup(ids.flat_values))
    if len(ids.flat_values.shape) > 1:  # The innermost axis is not the ragged one.
        flat = None if weights is None else weights.flat_values
        return ids.with_flat_values(_dense(lookup, ids.flat_values, flat, combiner, padding))
    if ids.ragged_rank > 1:
        inner = None if weights is None else weights.values
        return ids.with_values(_ragged(lookup, ids.values, inner, combiner, padding))
    flat = None if weights is None else weights.flat_values
    return _segments(lookup, ids.values, flat, ids.value_rowids(), ids.nrows(), combiner, padding)


def _sparse(lookup: Lookup, ids: Any, weights: Any, combiner: str, padding: Any) -> Any:
    flat_weights = None if weights is None else weights.values
    rows, count = ids.indices[:, 0], ids.dense_shape[0]
    return _segments(lookup, ids.values, flat_weights, rows, count, combiner, padding)


def _segments(
    lookup: Lookup, ids: Any, weights: Any, rows: Any, count: Any, combiner: str, padding: Any
) -> Any:
    return _pooled(
        lookup(ids),
        ids,
        weights,
        combiner,
        padding,
        lambda numbers: tf.math.unsorted_segment_sum(numbers, rows, count),
    )


def _pooled(
    vectors: Any, ids: Any, weights: Any, combiner: str, padding: Any, total: Lookup
) -> Any:
    """Vectors of the bags, of the vectors' type; `total` sums the numbers of each bag."""
    exact = "float64" if type_name(vectors) == "float64" else "float32"
    trailing = len(vectors.shape) - len(ids.shape)
    share = _shares(ids, weights, padding, exact)
    pooled = total(ops.cast(vectors, exact) * _expand(share, trailing))
    if combiner != "sum":
        pooled = pooled * _expand(_inverse_norm(share, combiner, total), trailing)
    return ops.cast(pooled, vectors.dtype)


def _shares(ids: Any, weights: Any, padding: Any, dtype: str) -> Any:
    share = ops.ones_like(ids, dtype=dtype) if weights is None else ops.cast(weights, dtype)
    return share if padding is None else ops.where(padding(ids), ops.zeros_like(share), share)


def _inverse_norm(share: Any, combiner: str, total: Lookup) -> Any:
    divisor = total(share) if combiner == "mean" else total(share * share)
    # A bag with nothing to divide by stays zero, and its gradient too: a root has no slope there.
    nothing = ops.equal(divisor, 0)
    divisor = ops.where(nothing, ops.ones_like(divisor), divisor)
    norm = divisor if combiner == "mean" else ops.sqrt(divisor)
    return ops.where(nothing, ops.zeros_like(norm), 1 / norm)


def _expand(x: Any, trailing: int) -> Any:
    for _ in range(trailing):
        x = ops.expand_dims(x, -1)
    return x
