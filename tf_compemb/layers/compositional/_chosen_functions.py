"""Vectors through small networks, of which each vector's class chooses one.

Gathering each vector's kernels would cost several times more than any form here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tf_compemb._keras import BACKEND, ops

if BACKEND == "tensorflow":
    import tensorflow as tf

# From this many vectors on, TensorFlow is quicker with one small product for each class.
GROUPED_FROM = 1024
# So many classes at most: each costs a handful of ops, however few vectors it has.
_GROUPED_CLASSES = 16


def apply_chosen(
    vectors: Any,
    classes: Any,
    kernels: Sequence[Any],
    biases: Sequence[Any],
    activation: Callable[[Any], Any],
) -> Any:
    """Network `classes[i]` applied to vector i.

    Args:
        vectors: Tensor (m, inputs).
        classes: Integers (m,), in `[0, count)`.
        kernels: For each layer a tensor (count, inputs, outputs) of the vectors' type.
        biases: For each layer a tensor (count, outputs).
        activation: What follows each layer but the last.

    Returns:
        Tensor (m, outputs) of the last layer.
    """
    count = kernels[0].shape[0]
    known = vectors.shape[0] is not None
    if (
        BACKEND == "tensorflow"
        and known
        and vectors.shape[0] >= GROUPED_FROM
        and 1 < count <= _GROUPED_CLASSES
    ):
        return _grouped(vectors, classes, kernels, biases, activation)
    return _masked(vectors, classes, kernels, biases, activation)


def _masked(
    vectors: Any, classes: Any, kernels: Sequence[Any], biases: Sequence[Any], activation: Callable
) -> Any:
    """All networks side by side; a mask on the narrower side of a layer leaves the chosen one."""
    count = kernels[0].shape[0]
    own = ops.one_hot(classes, count, dtype=kernels[0].dtype)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        _, inputs, outputs = kernel.shape
        if inputs <= outputs:
            spread = ops.expand_dims(vectors, 1) * ops.expand_dims(own, -1)
            vectors = ops.matmul(
                ops.reshape(spread, (-1, count * inputs)),
                ops.reshape(kernel, (count * inputs, outputs)),
            )
        else:
            side_by_side = ops.reshape(ops.transpose(kernel, (1, 0, 2)), (inputs, count * outputs))
            all_outputs = ops.reshape(ops.matmul(vectors, side_by_side), (-1, count, outputs))
            vectors = ops.sum(all_outputs * ops.expand_dims(own, -1), axis=1)
        vectors = vectors + ops.matmul(own, bias)
        if i < len(kernels) - 1:
            vectors = activation(vectors)
    return vectors


def _grouped(
    vectors: Any, classes: Any, kernels: Sequence[Any], biases: Sequence[Any], activation: Callable
) -> Any:
    """The vectors of each class through its network, then back in order. TensorFlow without XLA."""
    shape = (vectors.shape[0], kernels[-1].shape[2])
    count = kernels[0].shape[0]
    classes = tf.cast(classes, tf.int32)
    positions = tf.dynamic_partition(tf.range(tf.shape(vectors)[0]), classes, count)
    groups = tf.dynamic_partition(vectors, classes, count)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        # Unstacked once: a slice for each class would have a gradient of the whole kernel's size.
        groups = [
            tf.matmul(group, own_kernel) + own_bias
            for group, own_kernel, own_bias in zip(
                groups, tf.unstack(kernel), tf.unstack(bias), strict=True
            )
        ]
        if i < len(kernels) - 1:
            groups = [activation(group) for group in groups]
    return tf.ensure_shape(tf.dynamic_stitch(positions, groups), shape)
