"""Row catch-up: what lets Adam be exact and touch only the batch's rows.

A row is stored as it was after its last update, with the number of that step. Whoever reads it
adds the movement of the steps it missed (`RowCatchUp.pending`, a pure function: reading writes
nothing); its next update applies that movement first. The sums over missed steps are shared by
all rows (`StepHistory`; the mathematics is in `idle_series`).

Steps are counted modulo `HISTORY_STEPS`. Each update also visits a few rows in turn, with a
gradient of zero, so that no row is idle for longer than `SWEEP_STEPS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb.optimizers.row_adam import Moments, TableMoments
from tf_compemb.optimizers.row_updates import write_rows

HISTORY_STEPS = 65_536
SWEEP_STEPS = HISTORY_STEPS // 2
# Rows brought up to date at once by a flush: bounds its memory (8 MiB an array at width 16).
FLUSH_ROWS = 131_072


def step_number(step: Any, dtype: Any) -> Any:
    """A step as moments store it: a float, modulo HISTORY_STEPS, hence exact."""
    return tf.cast(tf.math.floormod(tf.cast(step, tf.int64), HISTORY_STEPS), dtype)


def steps_between(last_step: Any, step: Any) -> Any:
    """Steps that rows have missed by the end of `step`; `last_step` as moments store it."""
    now = step_number(step, last_step.dtype)
    return tf.math.floormod(now - last_step, float(HISTORY_STEPS))


def decay(beta: float, idle: Any, dtype: Any) -> Any:
    """`beta ** idle`, through float64, for `idle` goes up to thousands."""
    exponent = tf.cast(idle, tf.float64) * np.log(max(beta, 1e-300))
    return tf.cast(tf.exp(exponent), dtype)


class StepHistory:
    """For each of the last steps, the sums by which a row last updated then has moved since.

    Args:
        variable: Float64 `tf.Variable` of shape (HISTORY_STEPS, terms), zeros at first.
        weights: Array of shape (window, terms), see `idle_weights`.
    """

    def __init__(self, variable: Any, weights: np.ndarray) -> None:
        self._sums = variable
        self._weights = weights[:SWEEP_STEPS]  # no row is idle for longer

    def advance(self, step: Any, step_size: Any) -> None:
        """Adds step number `step` (scalar, 1 is the first) of bias-corrected size `step_size`."""
        ago = np.arange(1, len(self._weights) + 1)
        step = tf.cast(step, tf.int64)
        earlier = tf.math.floormod(step - ago, HISTORY_STEPS)
        moved = tf.cast(step_size, tf.float64) * self._weights
        self._sums.scatter_add(tf.IndexedSlices(moved, earlier))
        now = tf.math.floormod(step, HISTORY_STEPS)[None]
        write_rows(self._sums, now, np.zeros((1, self._weights.shape[1])))

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


class RowCatchUp:
    """What an exact optimiser puts on a table, as `variable.row_catch_up`.

    The layer adds `pending(ids)` to the rows it reads, and calls `flush()` before the whole table
    is taken out.

    Args:
        optimizer: The exact optimiser.
        table: The table's variable.
        stored: The table's moments.
        history: The optimiser's steps.

    Attributes:
        was_read: Whether `pending` was ever called.
    """

    def __init__(
        self, optimizer: Any, table: Any, stored: TableMoments, history: StepHistory
    ) -> None:
        self.table = table
        self.was_read = False
        self._optimizer = optimizer
        self._stored = stored
        self._history = history

    def pending(self, ids: Any) -> Any:
        """What the stored rows lack, shape (*ids.shape, width): add it to the rows."""
        self.was_read = True
        movement = self._history.movement(self._stored.read(ids), self._optimizer.epsilon)
        return tf.stop_gradient(-movement)

    def flush(self) -> None:
        """Applies to every row of the table the steps that it missed. Visits the whole table."""
        self._optimizer.flush_table(self.table)


def rows_with_sweep(gradient: Any, step: Any, table_shape: tuple[int, int]) -> Any:
    """A sparse gradient with zeros appended for the rows whose turn it is to be visited.

    Args:
        gradient: `tf.IndexedSlices` for a table.
        step: Integer scalar, the step's number.
        table_shape: Rows and width of the table.
    """
    table_rows, width = table_shape
    turn = -(-table_rows // SWEEP_STEPS)
    start = tf.math.floormod(tf.cast(step, tf.int64) * turn, table_rows)
    rows = tf.math.floormod(start + np.arange(turn), table_rows)
    zeros = tf.zeros((turn, width), gradient.values.dtype)
    return tf.IndexedSlices(
        tf.concat([gradient.values, zeros], 0),
        tf.concat([gradient.indices, tf.cast(rows, gradient.indices.dtype)], 0),
        gradient.dense_shape,
    )
