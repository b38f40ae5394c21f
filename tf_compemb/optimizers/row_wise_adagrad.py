"""Adagrad with one accumulator a row."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, ops, register
from tf_compemb.optimizers.adagrad import Adagrad
from tf_compemb.storage.table_rows import is_table

if BACKEND == "tensorflow":
    import tensorflow as tf


@register
class RowWiseAdagrad(Adagrad):
    """Adagrad whose tables keep one float a row, the sum of the row's mean squared gradients.

    `a += mean(g^2); w -= learning_rate * g / sqrt(a + epsilon)`, the mean over the row. The state
    of a table is `1 / width` of Adagrad's. This is the "exact row-wise Adagrad" of FBGEMM and
    TorchRec, in Keras' form (epsilon under the root, accumulators start at 0.1). Variables that
    are no tables take stock Adagrad. On the JAX and torch backends the result is the same, at a
    cost that grows with the table.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`.
        initial_accumulator_value: Float, where `a` starts.
        epsilon: Float, added to `a` under the root.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `name`, as in Keras.

    >>> RowWiseAdagrad(learning_rate=0.1).get_config()["initial_accumulator_value"]
    0.1
    """

    def accumulator_shape(self, variable: Any) -> tuple[int, ...]:
        """(rows, 1) for a table, the variable's own shape otherwise."""
        return (variable.shape[0], 1) if is_table(variable) else tuple(variable.shape)

    def dense_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The stock rule; for a table, the row-wise rule on all rows."""
        if not self.is_table(variable):
            super().dense_step(gradient, variable, learning_rate)
            return
        accumulator = self._accumulators[self.variable_index(variable)]
        rate = ops.cast(self._rate(learning_rate), variable.dtype)
        total = accumulator + ops.mean(ops.square(gradient), axis=1, keepdims=True)
        accumulator.assign(total)
        variable.assign(variable - rate * gradient / ops.sqrt(total + self.epsilon))

    def accumulated(self, gradient: Any, variable: Any) -> Any:
        """The mean of a row's squared gradients for a table, else the squares."""
        square = tf.square(gradient)
        return tf.reduce_mean(square, axis=1, keepdims=True) if self.is_table(variable) else square
