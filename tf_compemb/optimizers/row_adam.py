"""The arithmetic of an Adam step on rows, shared by lazy and exact Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, keras
from tf_compemb.optimizers.row_updates import RowUpdates, write_rows
from tf_compemb.storage.in_place import ConstantRows
from tf_compemb.storage.table_rows import is_table

if BACKEND == "tensorflow":
    import tensorflow as tf


@dataclass
class Moments:
    """Moments of n rows, each of shape (n, width).

    Attributes:
        first: First moments, Keras' momentum.
        second: Second moments, Keras' velocity.
        largest_second: AMSGrad's maxima of the second moments; None for Adam.
        last_step: Steps of the rows' last updates, shape (n, 1); None where they are not kept.
    """

    first: Any
    second: Any
    largest_second: Any = None
    last_step: Any = None

    @property
    def under_root(self) -> Any:
        """The moments under the root of the denominator."""
        return self.second if self.largest_second is None else self.largest_second


class TableMoments:
    """A table's moments side by side in one variable, so that a row is one place in memory.

    Args:
        variable: `tf.Variable` of shape (rows, columns): `first | second | largest_second |
            last_step`, the last two where they are kept. Not a Keras 3 variable, which inside a
            layer of mixed precision would be cast whole.
        amsgrad: Whether it holds `largest_second`.
        counted: Whether it holds `last_step`.

    Attributes:
        columns: Numbers of a row of the variable.
    """

    def __init__(self, variable: Any, amsgrad: bool, counted: bool) -> None:
        self._variable = variable
        self._amsgrad = amsgrad
        self._counted = counted
        wide = 3 if amsgrad else 2
        width = (variable.shape[1] - counted) // wide
        self._sizes = [width] * wide + [1] * counted
        self.columns: int = variable.shape[1]

    def read(self, rows: Any) -> Moments:
        """Gathers the moments of rows of any shape."""
        columns = tf.split(tf.gather(self._variable, rows), self._sizes, axis=-1)
        last_step = columns.pop() if self._counted else None
        moments = Moments(*columns)
        moments.last_step = last_step
        return moments

    def write(self, rows: Any, moments: Moments) -> None:
        """Overwrites the moments of distinct rows."""
        kept = (moments.first, moments.second, moments.largest_second, moments.last_step)
        columns = [column for column in kept if column is not None]
        write_rows(self._variable, rows, tf.concat(columns, axis=1))


class SeparateMoments:
    """Keras' own slots of a variable, read and written as `TableMoments` are."""

    def __init__(self, slots: list) -> None:
        self._slots = slots

    def read(self, rows: Any) -> Moments:
        """Gathers the moments of rows."""
        return Moments(*(tf.gather(slot, rows) for slot in self._slots))

    def write(self, rows: Any, moments: Moments) -> None:
        """Overwrites the moments of distinct rows."""
        kept = (moments.first, moments.second, moments.largest_second)
        for slot, values in zip(self._slots, kept, strict=False):
            write_rows(slot, rows, values)


class RowAdam(RowUpdates, keras.optimizers.Adam):  # type: ignore[misc, name-defined]
    """Keeps a table's moments in one variable, those of other variables in Keras' slots."""

    def build(self, variables: Any) -> None:
        """Creates the moments."""
        if self.is_built:
            return
        if BACKEND != "tensorflow":
            super().build(variables)
            return
        self.prepare_tables(variables)
        _refuse_narrow_tables(variables)
        keras.optimizers.Optimizer.build(self, variables)  # not Adam's: it adds every slot
        self._momentums = [self._add_slot(variable, "momentum") for variable in variables]
        self._velocities = [self._add_slot(variable, "velocity") for variable in variables]
        if self.amsgrad:
            self._velocity_hats = [self._add_slot(v, "velocity_hat") for v in variables]
        self._table_moments = [
            self.add_table_moments(variable) if is_table(variable) else None
            for variable in variables
        ]
        if LEGACY:
            self._built = True

    def moments_of(self, variable: Any) -> Any:
        """Where the moments of a variable are, to `read` and `write`."""
        table = self._table_moments[self.variable_index(variable)]
        if table is not None:
            return table
        slots = [self._momentums, self._velocities]
        if self.amsgrad:
            slots.append(self._velocity_hats)
        return SeparateMoments([self.slot(slot, variable) for slot in slots])

    def step_rows(
        self, weights: Any, moments: Moments, gradient: Any, step_size: Any
    ) -> tuple[Any, Moments]:
        """One step of the dense rule on rows (Kingma & Ba 2014; Reddi et al. 2018 for AMSGrad)."""
        first = moments.first + (gradient - moments.first) * (1 - self.beta_1)
        second = moments.second + (tf.square(gradient) - moments.second) * (1 - self.beta_2)
        largest = moments.largest_second
        largest = None if largest is None else tf.maximum(largest, second)
        stepped = Moments(first, second, largest)
        root = tf.sqrt(stepped.under_root)
        return weights - first * step_size / (root + self.epsilon), stepped

    def step_size(self, learning_rate: Any, step: Any) -> Any:
        """The bias-corrected learning rate of step number `step`, as Keras computes it."""
        dtype = learning_rate.dtype
        step = tf.cast(step, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        return learning_rate * tf.sqrt(correction_2) / correction_1

    def _add_slot(self, variable: Any, name: str) -> Any:
        if is_table(variable):
            return None
        return self.add_variable_from_reference(variable, name)

    def add_table_moments(self, variable: Any) -> Any:
        """Makes where the moments of a table are, to `read` and `write`."""
        rows, width = variable.shape
        shape = (rows, width * (3 if self.amsgrad else 2))
        name = self.state_name(variable, "moments")
        moments = self.add_raw_variable(shape, variable.dtype, ConstantRows(0.0), name)
        return TableMoments(moments, self.amsgrad, counted=False)

    def add_raw_variable(
        self, shape: tuple[int, ...], dtype: Any, initializer: Any, name: str
    ) -> Any:
        """Makes a variable of the optimiser, and returns TensorFlow's own."""
        variable = self.add_variable(shape=shape, dtype=dtype, initializer=initializer, name=name)
        return variable if LEGACY else variable.value


def _refuse_narrow_tables(variables: Any) -> None:
    for table in filter(is_table, variables):
        dtype = tf.as_dtype(table.dtype).name
        if dtype not in ("float32", "float64"):
            raise ValueError(
                f"The table {table.name} is of type {dtype}, in which Adam's moments and step "
                "numbers would be rounded away. Train a float32 table."
            )
