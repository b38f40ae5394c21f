"""The arithmetic of an Adam step on rows, shared by lazy and exact Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tf_compemb._keras import BACKEND, keras
from tf_compemb.optimizers.row_updates import RowUpdates, write_rows

if BACKEND == "tensorflow":
    import tensorflow as tf


@dataclass
class RowState:
    """Rows of a table and of its moments, each of shape (n, width).

    Attributes:
        weights: The rows themselves.
        first: First moments, Keras' momentum.
        second: Second moments, Keras' velocity.
        largest_second: AMSGrad's maxima of the second moments; None for Adam.
    """

    weights: Any
    first: Any
    second: Any
    largest_second: Any

    @property
    def denominator(self) -> Any:
        """The moments under the root."""
        return self.second if self.largest_second is None else self.largest_second


class RowAdam(RowUpdates, keras.optimizers.Adam):  # type: ignore[misc, name-defined]
    """Reads, steps and writes rows of a table and their moments."""

    def read_state(self, variable: Any, rows: Any) -> RowState:
        """Gathers rows and their moments as they are stored."""
        slots = self._slots(variable)
        state = [tf.gather(stored, rows) for stored in (variable, *slots)]
        return RowState(*state, *([] if self.amsgrad else [None]))

    def write_state(self, variable: Any, rows: Any, state: RowState) -> None:
        """Writes rows and their moments back."""
        values = (state.weights, state.first, state.second, state.largest_second)
        for stored, value in zip((variable, *self._slots(variable)), values, strict=False):
            write_rows(stored, rows, value)

    def step_state(self, state: RowState, gradient: Any, step_size: Any) -> RowState:
        """One step of the dense rule on rows (Kingma & Ba 2014; Reddi et al. 2018 for AMSGrad)."""
        first = state.first + (gradient - state.first) * (1 - self.beta_1)
        second = state.second + (tf.square(gradient) - state.second) * (1 - self.beta_2)
        largest = state.largest_second
        largest = None if largest is None else tf.maximum(largest, second)
        root = tf.sqrt(second if largest is None else largest)
        weights = state.weights - first * step_size / (root + self.epsilon)
        return RowState(weights, first, second, largest)

    def step_size(self, learning_rate: Any, step: Any) -> Any:
        """The bias-corrected learning rate of step number `step`, as Keras computes it."""
        dtype = learning_rate.dtype
        step = tf.cast(step, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        return learning_rate * tf.sqrt(correction_2) / correction_1

    def _slots(self, variable: Any) -> list:
        slots = [self._momentums, self._velocities]
        if self.amsgrad:
            slots.append(self._velocity_hats)
        return [self.slot(slot, variable) for slot in slots]
