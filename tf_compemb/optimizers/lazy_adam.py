"""Lazy Adam: rows without gradient stand still."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, register
from tf_compemb.optimizers.row_adam import RowAdam

if BACKEND == "tensorflow":
    import tensorflow as tf


@register
class LazyAdam(RowAdam):
    """Adam, or AMSGrad, in which a row moves and its moments decay only when it gets a gradient.

    Not the dense rule, whose idle rows go on moving with their momentum: use `Adam` or `AMSGrad`
    for that. Takes no memory beyond the moments, and is the quickest of the four. The bias
    correction counts the optimiser's steps, not the row's. Same as TensorFlow Addons' LazyAdam.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`.
        beta_1: Float, decay of the first moment.
        beta_2: Float, decay of the second moment.
        epsilon: Float, added to the root of the second moment.
        amsgrad: Boolean, whether to divide by the largest second moment so far.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `name`, as in Keras.

    Raises:
        RuntimeError: Keras runs on JAX or torch, where gradients are dense and a row without
            gradient cannot be told from one whose gradient is zero.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if BACKEND != "tensorflow":
            raise RuntimeError(
                f"LazyAdam needs TensorFlow: on the {BACKEND} backend of Keras gradients are dense "
                "and no row is idle. Use Adam or AMSGrad, which are the dense rule there."
            )
        super().__init__(*args, **kwargs)

    def dense_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The stock rule; for a small table, a step on the rows whose gradient is not zero."""
        if not self.is_table(variable):
            super().dense_step(gradient, variable, learning_rate)
            return
        rows = tf.where(tf.reduce_any(gradient != 0, axis=1))[:, 0]
        rate = tf.cast(self._rate(learning_rate), variable.dtype)
        self.update_rows(variable, rows, tf.gather(gradient, rows), rate)

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """One step on rows, as if the steps since their last one had not been."""
        stored = self.moments_of(variable)
        step_size = self.step_size(learning_rate, self.iterations + 1)
        weights = tf.gather(variable, rows)
        weights, moments = self.step_rows(weights, stored.read(rows), gradient, step_size)
        self.write_weights(variable, rows, weights)
        stored.write(rows, moments)
