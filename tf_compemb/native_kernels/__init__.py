"""Compiled kernels for training on the CPU: optional, built by the user.

`python -m tf_compemb.native_kernels` compiles them against the installed TensorFlow. From then on
`SGD`, `Adagrad` and `RowWiseAdagrad` update float32 tables by them, and layers in training read
large tables by them; an `EmbeddingCollection` whose vectors are rows or products of rows (full,
hash, quotient-remainder, partitions) is read in one pass. Without them the same numbers come from
TensorFlow's own ops, in more time. `TF_COMPEMB_NATIVE_KERNELS=0` in the environment leaves them
out.
"""

from __future__ import annotations

from typing import Any

SWITCH = "TF_COMPEMB_NATIVE_KERNELS"
"""The environment variable that leaves the kernels out where it is 0."""


def available() -> bool:
    """Whether the kernels are used: built for this TensorFlow and processor, and not left out.

    Imports TensorFlow.
    """
    from tf_compemb.native_kernels.library import loaded

    return loaded() is not None


def kernels_for(table: Any, gradient: Any) -> Any:
    """The kernels, or None where TensorFlow's own ops must update a table.

    Args:
        table: `tf.Variable` of one device.
        gradient: Its `tf.IndexedSlices`.
    """
    import tensorflow as tf

    from tf_compemb.native_kernels.library import can_run_on, loaded

    return loaded() if gradient.dtype == tf.float32 and can_run_on(table) else None
