"""Adagrad on rows, with an accumulator for every parameter."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, keras, register
from tf_compemb.optimizers.row_updates import RowUpdates, write_rows

if BACKEND == "tensorflow":
    import tensorflow as tf


@register
class Adagrad(RowUpdates, keras.optimizers.Adagrad):  # type: ignore[misc, name-defined]
    """Adagrad (Duchi et al. 2011): `a += g^2; w -= learning_rate * g / sqrt(a + epsilon)`.

    Equal to the dense rule: a row without gradient does not move under Adagrad. Keras 3's own on
    TensorFlow updates every row, and does not merge duplicate ids.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`.
        initial_accumulator_value: Float, where `a` starts.
        epsilon: Float, added to `a` under the root.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `name`, as in Keras.

    >>> Adagrad(learning_rate=0.1).get_config()["initial_accumulator_value"]
    0.1
    """

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Accumulates and moves rows."""
        accumulator = self.slot(self._accumulators, variable)
        total = tf.gather(accumulator, rows) + tf.square(gradient)
        step = learning_rate * gradient * tf.math.rsqrt(total + self.epsilon)
        write_rows(accumulator, rows, total)
        write_rows(variable, rows, tf.gather(variable, rows) - step)
