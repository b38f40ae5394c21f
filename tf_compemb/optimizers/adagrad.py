"""Adagrad on rows, with an accumulator for every parameter."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, keras, register
from tf_compemb.optimizers.row_updates import RowUpdates, write_rows
from tf_compemb.storage.in_place import ConstantRows

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

    has_native_update = True

    def build(self, variables: Any) -> None:
        """Creates the accumulators."""
        if self.is_built:
            return
        self.prepare_tables(variables)
        # Not Keras' Adagrad.build, which would add an accumulator for every parameter.
        keras.optimizers.Optimizer.build(self, variables)
        self._accumulators = [
            self.add_variable(
                shape=self.accumulator_shape(variable),
                initializer=ConstantRows(self.initial_accumulator_value),
                dtype=variable.dtype,
                name=self.state_name(variable, "accumulator"),
            )
            for variable in variables
        ]
        if LEGACY:
            self._built = True

    def accumulator_shape(self, variable: Any) -> tuple[int, ...]:
        """Shape of a variable's accumulator: its own."""
        return tuple(variable.shape)

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Accumulates and moves rows."""
        accumulator = self.slot(self._accumulators, variable)
        total = tf.gather(accumulator, rows) + self.accumulated(gradient, variable)
        step = learning_rate * tf.math.rsqrt(total + self.epsilon) * gradient
        write_rows(accumulator, rows, total)
        self.write_weights(variable, rows, tf.gather(variable, rows) - step)

    def update_natively(
        self, kernels: Any, variable: Any, gradient: Any, learning_rate: Any
    ) -> None:
        """Accumulates and moves rows, duplicates added up; row-wise if the accumulator is."""
        kernels.tf_compemb_adagrad_rows(
            variable.handle,
            self.slot(self._accumulators, variable).handle,
            gradient.indices,
            gradient.values,
            learning_rate,
            epsilon=self.epsilon,
        )

    def update_product_natively(self, product: Any, learning_rate: Any) -> None:
        """Accumulates and moves the rows of all tables of a product."""
        product.kernels.tf_compemb_adagrad_row_products(
            product.handles,
            [self.slot(self._accumulators, variable).handle for variable in product.variables],
            product.row_numbers,
            product.upstream,
            learning_rate,
            **product.entries,
            epsilon=self.epsilon,
        )

    def accumulated(self, gradient: Any, variable: Any) -> Any:
        """What a gradient adds to its rows of the accumulator."""
        return tf.square(gradient)
