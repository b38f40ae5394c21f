"""Compiled kernels for training on the CPU: optional, built by the user.

`tf-compemb native-kernels` compiles them against the installed TensorFlow. From then on
`SGD`, `Adagrad` and `RowWiseAdagrad` update float32 tables by them, and layers in training read
large tables by them; an `EmbeddingCollection` whose vectors are rows or products of rows (full,
hash, quotient-remainder, partitions) is read in one pass and updated in another. Without them the
same numbers come from TensorFlow's own ops, in more time. `TF_COMPEMB_NATIVE_KERNELS=0` in the
environment leaves them out.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

SWITCH = "TF_COMPEMB_NATIVE_KERNELS"
"""The environment variable that leaves the kernels out where it is 0."""


def available() -> bool:
    """Whether the kernels are used: built for this TensorFlow and processor, and not left out.

    Imports TensorFlow, if it is installed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        return False
    from tf_compemb.native_kernels.library import loaded

    return loaded() is not None


_in_inference: contextvars.ContextVar[bool] = contextvars.ContextVar("in_inference", default=False)


@contextlib.contextmanager
def in_inference() -> Iterator[None]:
    """Within, lookups that are traced or run without a gradient are by the kernels too.

    For evaluation and prediction in this process. What is traced within must not be saved: whoever
    loads it would need the kernels.

    Example:

    >>> import numpy as np
    >>> from tf_compemb import QREmbedding, native_kernels
    >>> layer = QREmbedding(1000, 4, collisions=10)
    >>> with native_kernels.in_inference():
    ...     vectors = layer(np.array([3, 999]))
    >>> tuple(vectors.shape)
    (2, 4)
    """
    token = _in_inference.set(True)
    try:
        yield
    finally:
        _in_inference.reset(token)


def may_read() -> bool:
    """Whether lookups are by the kernels: in training and within `in_inference`, on TensorFlow."""
    from tf_compemb._keras import BACKEND, in_training

    return BACKEND == "tensorflow" and (in_training() or _in_inference.get())


def without_gradient() -> bool:
    """Whether lookups are by the kernels though no gradient is taken."""
    return _in_inference.get()


def kernels_for(table: Any, gradient: Any) -> Any:
    """The kernels, or None where TensorFlow's own ops must update a table.

    Args:
        table: `tf.Variable` of one device.
        gradient: Its `tf.IndexedSlices`.
    """
    import tensorflow as tf

    from tf_compemb.native_kernels.library import can_run_on, loaded

    return loaded() if gradient.dtype == tf.float32 and can_run_on(table) else None


def product_gradients(gradients_and_variables: Sequence[tuple[Any, Any]]) -> list[Any]:
    """The `updating.ProductGradient`s that the kernels can apply without writing them.

    Args:
        gradients_and_variables: Pairs of a gradient, or None, and a `tf.Variable`.
    """
    from tf_compemb.native_kernels import updating
    from tf_compemb.native_kernels.library import loaded

    return [] if loaded() is None else updating.product_gradients(gradients_and_variables)
