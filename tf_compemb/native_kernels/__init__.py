"""Compiled kernels for the row optimisers on the CPU: optional, built by the user.

`python -m tf_compemb.native_kernels` compiles them against the installed TensorFlow. From then on
`SGD`, `Adagrad` and `RowWiseAdagrad` use them for float32 tables on the CPU. Without them the same
numbers come from TensorFlow's own ops, in more time. `TF_COMPEMB_NATIVE_KERNELS=0` in the
environment leaves them out.
"""

from __future__ import annotations

from typing import Any


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
    from tf_compemb.native_kernels.library import can_update, loaded

    return loaded() if can_update(table, gradient) else None
