"""Deferred updates: what lets Adam be exact and touch only the batch's rows.

A row is stored as it was after its last update, with the number of that step. Whoever reads it
adds the movement of the steps it missed (`DeferredUpdate.correction`, a pure function: reading
writes nothing); its next update applies that movement first. The sums over missed steps are shared
by all rows of a table (`StepHistory`; the mathematics is in `idle_series`).

Each table counts the steps that it took part in: a step of other tables does not move it. Steps
are counted modulo the length of the table's history. Each of them also visits a few rows in turn,
with a gradient of zero, so that no row is idle for longer than a round.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.optimizers.idle_series import idle_weights
from tf_compemb.optimizers.row_adam import Moments, TableMoments
from tf_compemb.optimizers.row_updates import write_rows
from tf_compemb.storage.current_variable import give_current_rows, rows_as_stored
from tf_compemb.storage.in_place import ConstantRows
from tf_compemb.storage.table_rows import Table

# Steps of a round at most: a float32 counts those of a history exactly, and it stays small.
LONGEST_ROUND = 32_768
# A round is no longer than it must be to visit so few rows a step, but no shorter than so many
# steps: each visit rounds a row once more.
ROWS_IN_TURN = 16
SHORTEST_ROUND = 1024
# Rows brought up to date at once: bounds the memory it takes (8 MiB an array at width 16).
MATERIALIZED_ROWS = 131_072

# Makes a variable that the optimiser saves: shape, dtype, initializer, name.
AddVariable = Callable[[tuple[int, ...], str, Any, str], Any]


@dataclass(frozen=True)
class AdamRule:
    """All that the movement of an idle row depends on, beside its moments and the step sizes.

    Attributes:
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        amsgrad: Whether the largest second moment divides.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    amsgrad: bool

    def idle_weights(self) -> np.ndarray:
        """See `tf_compemb.optimizers.idle_series`."""
        return idle_weights(self.beta_1, self.beta_2, self.amsgrad)


@dataclass(frozen=True)
class Turns:
    """In which order a table's rows are visited, some at each step.

    Attributes:
        table_rows: Rows of the table.
    """

    table_rows: int

    @property
    def rows_a_step(self) -> int:
        """Rows that each step visits."""
        few = min(ROWS_IN_TURN, -(-self.table_rows // SHORTEST_ROUND))
        return max(few, -(-self.table_rows // LONGEST_ROUND))

    @property
    def steps(self) -> int:
        """Steps of a round, after which every row has been visited."""
        return -(-self.table_rows // self.rows_a_step)

    def at(self, step: Any) -> Any:
        """Numbers of the rows that step number `step`, an integer scalar, visits."""
        start = tf.math.floormod(step, self.steps) * self.rows_a_step
        return tf.math.floormod(start + np.arange(self.rows_a_step), self.table_rows)


class StepHistory:
    """For each of the last steps, the sums by which a row last updated then has moved since.

    Args:
        variable: Float64 `tf.Variable` of shape (steps, terms), zeros at first.
        weights: Array of shape (window, terms), see `idle_weights`.
    """

    def __init__(self, variable: Any, weights: np.ndarray) -> None:
        self._sums = variable
        self._steps = variable.shape[0]
        self._weights = weights[: self._steps // 2]  # No row is idle for longer.

    def advance(self, step: Any, step_size: Any) -> None:
        """Adds step number `step` (int64, modulo the steps kept) of size `step_size`."""
        ago = np.arange(1, len(self._weights) + 1)
        earlier = tf.math.floormod(step - ago, self._steps)
        moved = tf.cast(step_size, tf.float64) * self._weights
        self._sums.scatter_add(tf.IndexedSlices(moved, earlier))
        write_rows(self._sums, step[None], np.zeros((1, self._weights.shape[1])))

    def movement(self, moments: Moments, epsilon: float) -> Any:
        """By how much rows are still to be lowered, shape (..., width).

        Args:
            moments: The rows' moments as stored.
            epsilon: Adam's epsilon.
        """
        first = moments.first
        last_step = tf.cast(tf.squeeze(moments.last_step, -1), tf.int32)
        sums = tf.cast(tf.gather(self._sums, last_step), first.dtype)
        terms = tf.split(sums, self._weights.shape[1], axis=-1)
        root = tf.sqrt(moments.under_root)
        share = root / (root + epsilon)
        total = terms[-1]
        for term in reversed(terms[:-1]):
            total = term + share * total
        return first * total / (root + epsilon)


class DeferredUpdate:
    """What an exact optimiser keeps of a table, and how its rows are brought up to date.

    Args:
        table: The table.
        rule: The optimiser's.
        add_variable: Makes a variable of the optimiser.

    Attributes:
        rule: The optimiser's rule.
        variables: Its variables: moments by rows, with the steps of the rows' last updates, the
            table's own step number in one row more; and the history of steps.
        stays_current: Whether each step must bring all rows up to date; None before it is known.
        owner: Gives the optimiser, or None when it is gone.
    """

    def __init__(self, table: Table, rule: AdamRule, add_variable: AddVariable) -> None:
        rows, width = table.variable.shape
        columns = width * (3 if rule.amsgrad else 2) + 1
        weights = rule.idle_weights()
        self.rule = rule
        self.stays_current: bool | None = None
        self.owner: Callable[[], Any] = lambda: None
        self._table = table
        self._turns = Turns(rows)
        self._length = 2 * self._turns.steps
        dtype = tf.as_dtype(table.variable.dtype).name
        self.variables = [
            add_variable((rows + 1, columns), dtype, ConstantRows(0.0), "moments"),
            add_variable((self._length, weights.shape[1]), "float64", "zeros", "step_sums"),
        ]
        self._stored = TableMoments(self.variables[0], rule.amsgrad, counted=True)
        self._history = StepHistory(self.variables[1], weights)

    def attach(self, owner: Any) -> None:
        """Begins to defer updates of the table for an optimiser."""
        self.owner = weakref.ref(owner)
        self._table.attach(self)
        give_current_rows(self.variables[0], self._table.materialize)

    def detach(self) -> None:
        """Brings all rows up to date; those who read them no longer add a correction."""
        self._table.detach(self)

    def correction(self, ids: Any) -> Any:
        """What the stored rows lack, shape (*ids.shape, width): add it to the rows."""
        with rows_as_stored():
            movement = self._history.movement(self._stored.read(ids), self.rule.epsilon)
        return tf.stop_gradient(-movement)

    def rows_of_step(self, gradient: Any) -> Any:
        """A sparse gradient with zeros appended for the rows whose turn it is to be visited."""
        with rows_as_stored():
            rows = self._turns.at(tf.cast(self._clock(), gradient.indices.dtype))
        width = self._table.variable.shape[1]
        zeros = tf.zeros((self._turns.rows_a_step, width), gradient.values.dtype)
        return tf.IndexedSlices(
            tf.concat([gradient.values, zeros], 0),
            tf.concat([gradient.indices, rows], 0),
            gradient.dense_shape,
        )

    def step(self, variable: Any, rows: Any, change: Callable, step_size: Any) -> None:
        """Brings rows up to date, then makes a step of the optimiser on them.

        Args:
            variable: The table's variable on the device of the step.
            rows: Distinct row numbers.
            change: Rows and moments to those after the step.
            step_size: Bias-corrected learning rate of the step.
        """
        with rows_as_stored():
            last = self._clock()
            now = tf.math.floormod(last + 1, self._length)
            weights, moments = change(*self._rows_at(last, variable, rows))
            self._write(variable, rows, weights, moments, now)
            self._history.advance(tf.cast(now, tf.int64), step_size)
            self._write_clock(now)
            if self.stays_current:
                self._materialize_on_device(variable)

    def bring_up_to_date(self, rows: Any) -> None:
        """Writes what distinct rows lack."""
        with rows_as_stored():
            variable = self._table.raw_variable
            now = self._clock()
            weights, moments = self._rows_at(now, variable, rows)
            self._write(variable, rows, weights, moments, now)

    def materialize(self) -> None:
        """Writes what every row lacks. Visits the whole table, unless no step was made since."""
        with rows_as_stored():
            variable = self._table.raw_variable
            if not tf.executing_eagerly():
                self._materialize_on_device(variable)
                return
            if self._is_materialized():
                return
            strategy = getattr(variable, "distribute_strategy", None)
            if strategy is None:
                self._materialize_on_device(variable)
            else:
                with strategy.scope():
                    strategy.extended.update(variable, self._materialize_on_device, group=False)

    def _materialize_on_device(self, variable: Any) -> None:
        now, total = self._clock(), self._turns.table_rows
        for start in range(0, total, MATERIALIZED_ROWS):
            rows = tf.range(start, min(start + MATERIALIZED_ROWS, total))
            last_step = self._stored.read(rows).last_step
            rows = tf.boolean_mask(rows, last_step[:, 0] != now)
            weights, moments = self._rows_at(now, variable, rows)
            self._write(variable, rows, weights, moments, now)
        self._write_clock(now, materialized=True)

    def _is_materialized(self) -> bool:
        last = tf.gather(self.variables[0], self._turns.table_rows).numpy()
        return bool(last[0] == last[-1] + 1)

    def _write_clock(self, step: Any, materialized: bool = False) -> None:
        """Writes the last row of the moments: its end is the step, its start one more, or zero."""
        between = tf.zeros(self._stored.columns - 2, step.dtype)
        start = step + 1 if materialized else tf.zeros_like(step)
        row = tf.concat([[start], between, [step]], 0)
        write_rows(self.variables[0], [self._turns.table_rows], row[None])

    def _clock(self) -> Any:
        """The table's step number, modulo the length of the history."""
        return tf.gather(self.variables[0], self._turns.table_rows)[-1]

    def _rows_at(self, step: Any, variable: Any, rows: Any) -> tuple[Any, Moments]:
        """Rows and moments as the dense rule has them after `step`, the last one made."""
        stored = self._stored.read(rows)
        idle = tf.math.floormod(step - stored.last_step, float(self._length))
        weights = tf.gather(variable, rows) - self._history.movement(stored, self.rule.epsilon)
        first = stored.first * _decay(self.rule.beta_1, idle, weights.dtype)
        second = stored.second * _decay(self.rule.beta_2, idle, weights.dtype)
        moments = Moments(first, second, stored.largest_second)
        return self._constrained(weights), moments

    def _write(self, variable: Any, rows: Any, weights: Any, moments: Moments, step: Any) -> None:
        moments.last_step = tf.fill([tf.shape(rows)[0], 1], step)
        write_rows(variable, rows, self._constrained(weights))
        self._stored.write(rows, moments)

    def _constrained(self, rows: Any) -> Any:
        constraint = self._table.row_constraint
        return rows if constraint is None else constraint(rows)


def _decay(beta: float, idle: Any, dtype: Any) -> Any:
    """`beta ** idle`, through float64, for `idle` goes up to thousands."""
    exponent = tf.cast(idle, tf.float64) * np.log(max(beta, 1e-300))
    return tf.cast(tf.exp(exponent), dtype)
