"""Which ids, weights and combiners go together, and that a weight stands where its id stands.

What is known while a model is made or traced raises there, as a `TypeError` or `ValueError`. Where
an id lies in a bag is known in a running graph only; that raises an `InvalidArgumentError` with the
same sentence.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from tf_compemb._keras import BACKEND, ops, raise_in_graph
from tf_compemb.layers.ids import type_name

if BACKEND == "tensorflow":
    import tensorflow as tf

_NUMBERS = ("int", "uint", "float", "bfloat", "bool")


def is_ragged(x: Any) -> bool:
    """Whether `x` is a tf.RaggedTensor, or a placeholder of one."""
    if BACKEND == "tensorflow" and isinstance(x, tf.RaggedTensor):
        return True
    return bool(getattr(x, "ragged", False))


def is_sparse(x: Any) -> bool:
    """Whether `x` is a tf.SparseTensor, or a placeholder of one."""
    if BACKEND == "tensorflow" and isinstance(x, tf.SparseTensor):
        return True
    return getattr(x, "sparse", False) is True


def to_weight_tensor(weights: Any, name: str) -> Any:
    """NumPy arrays, lists and numbers as a tensor of weights; everything else unchanged.

    Raises:
        TypeError: The weights are not numbers.
        ValueError: A list has rows of different lengths.
    """
    if not isinstance(weights, (np.ndarray, np.generic, list, tuple, numbers.Number)):
        return weights
    try:
        array = np.asarray(weights)
    except ValueError as error:
        raise ValueError(
            f"{name}: `weights` are lists of different lengths. Pad them as the ids are padded, or "
            "make a tf.RaggedTensor of both."
        ) from error
    _check_numbers(array, name)
    return ops.convert_to_tensor(array.astype("float64" if array.dtype == "float64" else "float32"))


def check_forms(name: str, ids: Any, weights: Any, combiner: str | None) -> None:
    """Raises if forms, types, or shapes as far as they are known do not go together.

    Args:
        name: Of the layer.
        ids: A tensor of ids, or a placeholder.
        weights: None, or the same of weights.
        combiner: As of the layer.

    Raises:
        TypeError: The weights are not numbers.
        ValueError: Anything else.
    """
    form, rank = _form(ids), _rank(ids)
    if form != "dense" and BACKEND != "tensorflow":
        raise ValueError(
            f"{name}: {form} ids need the TensorFlow backend. Pad them and use mask_zero=True."
        )
    if combiner is None and (weights is not None or form == "sparse"):
        what = "`weights`" if weights is not None else "sparse ids"
        raise ValueError(f"{name}: {what} need a combiner: pass combiner='sum', 'mean' or 'sqrtn'.")
    if combiner is not None and rank == 0:
        raise ValueError(
            f"{name}: combiner={combiner!r} pools the last axis of the ids; a scalar has none."
        )
    if form == "sparse" and rank not in (2, None):
        raise ValueError(f"{_sparse_sentence(name)} Received: shape {tuple(ids.shape)}")
    if weights is None:
        return
    if not hasattr(weights, "shape"):
        raise TypeError(
            f"{name}: `weights` must be a tensor or an array, one number for each id. "
            f"Received: {type(weights).__name__}"
        )
    _check_numbers(weights, name)
    if _form(weights) != form:
        raise ValueError(
            f"{name}: `weights` must come in the form of the ids, one weight for each id. "
            f"Received: {form} ids and {_form(weights)} weights"
        )
    if not _may_be_equal(ids, weights):
        raise ValueError(
            f"{_sentence(name, form)} Received: ids of shape {tuple(ids.shape)}, weights of shape "
            f"{tuple(weights.shape)}"
        )
    if not _may_have_equal_parts(ids, weights, form):
        raise ValueError(_sentence(name, form))


def checked_sparse(name: str, ids: Any) -> Any:
    """Sparse ids of two axes, which a graph may learn only when it runs.

    Raises:
        ValueError: They have another number of axes.
    """
    if _rank(ids) is not None:
        return ids
    two = tf.equal(tf.size(ids.dense_shape), 2)
    shape = raise_in_graph(two, _sparse_sentence(name), ids.dense_shape)
    with tf.control_dependencies([shape]):
        return tf.SparseTensor(tf.identity(ids.indices), ids.values, shape)


def paired(name: str, ids: Any, weights: Any) -> Any:
    """The weights, of which each stands where its id stands.

    Args:
        name: Of the layer.
        ids: A tensor for which `check_forms` raises nothing.
        weights: The same of weights.

    Raises:
        ValueError: They stand elsewhere, and the values are known.
    """
    if BACKEND != "tensorflow":  # Shapes are known there, and all is dense.
        return weights
    form = _form(ids)
    pairs = [(a, b) for a, b in zip(_parts(ids, form), _parts(weights, form), strict=True)]
    unsure = [(a, b) for a, b in pairs if a is not b]
    if not unsure or (form == "dense" and ids.shape == weights.shape and _is_static(ids)):
        return weights
    same = tf.reduce_all([_same(a, b) for a, b in unsure])
    if tf.executing_eagerly():
        if not same:
            raise ValueError(_sentence(name, form))
        return weights
    if form == "dense":
        return raise_in_graph(same, _sentence(name, form), weights)
    flat = weights.flat_values if form == "ragged" else weights.values
    flat = raise_in_graph(same, _sentence(name, form), flat)
    return weights.with_flat_values(flat) if form == "ragged" else weights.with_values(flat)


def _sentence(name: str, form: str) -> str:
    what = {
        "dense": "`weights` must have the shape of the ids",
        "ragged": "ragged `weights` must have the row lengths of the ids",
        "sparse": "sparse `weights` must have the indices and the dense shape of the ids",
    }[form]
    return f"{name}: {what}, one weight for each id."


def _sparse_sentence(name: str) -> str:
    return (
        f"{name}: sparse ids must have shape (batch, length), a bag in each row. For bags inside "
        "rows make a tf.RaggedTensor, or pad the ids."
    )


def _form(x: Any) -> str:
    return "ragged" if is_ragged(x) else "sparse" if is_sparse(x) else "dense"


def _rank(x: Any) -> int | None:
    """Number of axes, or None where a graph does not know it."""
    shape = x.shape
    return shape.rank if hasattr(shape, "rank") else len(shape)


def _is_static(x: Any) -> bool:
    return _rank(x) is not None and None not in tuple(x.shape)


def _check_numbers(x: Any, name: str) -> None:
    if not type_name(x).startswith(_NUMBERS):
        raise TypeError(f"{name}: `weights` must be numbers, not {type_name(x)}.")


def _may_be_equal(a: Any, b: Any) -> bool:
    """Whether two shapes are equal as far as they are known."""
    if _rank(a) is None or _rank(b) is None:
        return True
    if _rank(a) != _rank(b):
        return False
    sizes = zip(tuple(a.shape), tuple(b.shape), strict=True)
    return all(m == n or None in (m, n) for m, n in sizes)


def _may_have_equal_parts(ids: Any, weights: Any, form: str) -> bool:
    if form == "dense" or not hasattr(ids, "dtype") or BACKEND != "tensorflow":
        return True
    if not isinstance(ids, (tf.RaggedTensor, tf.SparseTensor)):  # a placeholder
        return True
    ours, theirs = _parts(ids, form), _parts(weights, form)
    return len(ours) == len(theirs) and all(map(_may_be_equal, ours, theirs))


def _parts(x: Any, form: str) -> list[Any]:
    """The tensors that say where the numbers of `x` stand."""
    if form == "ragged":
        return [*x.nested_row_splits, tf.shape(x.flat_values)]
    if form == "sparse":
        return [x.indices, x.dense_shape]
    return [tf.shape(x)]


def _same(a: Any, b: Any) -> Any:
    """Whether two tensors of as many axes are equal, also where they have different lengths."""
    a, b = tf.cast(a, tf.int64), tf.cast(b, tf.int64)
    shorter = tf.minimum(tf.shape(a)[0], tf.shape(b)[0])
    equal = tf.reduce_all(tf.equal(a[:shorter], b[:shorter]))
    return tf.logical_and(tf.equal(tf.shape(a)[0], tf.shape(b)[0]), equal)
