"""Stochastic gradient descent on rows."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, keras, register
from tf_compemb.optimizers.row_updates import RowUpdates

if BACKEND == "tensorflow":
    import tensorflow as tf


@register
class SGD(RowUpdates, keras.optimizers.SGD):  # type: ignore[misc, name-defined]
    """Gradient descent, `w -= learning_rate * g`, without momentum and without state.

    Equal to the stock rule on every runtime. tf_keras' own SGD updates every row and keeps a
    momentum the size of the table even at `momentum=0`.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `name`, as in Keras.

    Raises:
        ValueError: `momentum` is not 0: a row with momentum moves at every step, read or not.

    >>> SGD(learning_rate=0.1).get_config()["momentum"]
    0.0
    """

    has_native_update = True

    def __init__(self, learning_rate: Any = 0.01, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        if self.momentum or self.nesterov:
            raise ValueError(
                f"SGD takes no momentum (received momentum={self.momentum}, nesterov="
                f"{self.nesterov}): it would move every row of every table at every step. Use "
                "momentum=0.0, or Adam, whose momentum is exact and costs the batch only."
            )

    def build(self, variables: Any) -> None:
        """Creates the optimiser's variables: the step counter and the learning rate."""
        if not LEGACY:
            super().build(variables)
        elif not self.is_built:
            self.prepare_tables(variables)
            keras.optimizers.Optimizer.build(self, variables)  # tf_keras' SGD adds momentum slots
            self._built = True

    def dense_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The stock rule; tf_keras' own reads a momentum slot."""
        if not LEGACY:
            super().dense_step(gradient, variable, learning_rate)
            return
        variable.assign_sub(gradient * tf.cast(self._rate(learning_rate), variable.dtype))

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Moves rows against their gradients."""
        rows_after = tf.gather(variable, rows) - learning_rate * gradient
        self.write_weights(variable, rows, rows_after)

    def update_natively(
        self, kernels: Any, variable: Any, gradient: Any, learning_rate: Any
    ) -> None:
        """Moves rows against their gradients, duplicates added up."""
        kernels.tf_compemb_sgd_rows(
            variable.handle, gradient.indices, gradient.values, learning_rate
        )

    def update_product_natively(self, product: Any, learning_rate: Any) -> None:
        """Moves the rows of all tables of a product."""
        product.kernels.tf_compemb_sgd_row_products(
            product.handles,
            product.row_numbers,
            product.upstream,
            learning_rate,
            **product.entries,
        )
