"""Adam and AMSGrad, equal to the dense rule, at a cost that grows with the batch only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, add_slices, register
from tf_compemb.optimizers.idle_series import idle_weights
from tf_compemb.optimizers.row_adam import Moments, RowAdam
from tf_compemb.optimizers.row_updates import is_row_table

if BACKEND == "tensorflow":
    import tensorflow as tf

    from tf_compemb.optimizers import catch_up


@register
class Adam(RowAdam):
    """Adam (Kingma & Ba 2014), or AMSGrad (Reddi et al. 2018), exact on tables read by rows.

    Rows that a batch does not read still move under the dense rule. Here they are stored as last
    updated, and the steps they missed are added in closed form whenever they are read and before
    they are next updated, so that training, evaluation and prediction see the dense rule's rows.
    A table costs 4 bytes a row beyond the moments; all tables share 0.5 MiB (AMSGrad) or 3 MiB
    (Adam with its usual betas).

    The optimiser must be built before the training step is traced. Keras 3's `fit` does that;
    elsewhere call `optimizer.build(model.trainable_variables)`, under a strategy in its scope.

    Rows under a constraint keep it when they are read, updated or flushed, but the movement of the
    steps that they missed is added up without it.

    Variables without `row_catch_up` take the stock rule, sparse gradients made dense. On the JAX
    and torch backends this is the stock optimiser: gradients are dense there.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`. May change at any step.
        beta_1: Float, decay of the first moment.
        beta_2: Float, decay of the second moment.
        epsilon: Float, added to the root of the second moment.
        amsgrad: Boolean, whether to divide by the largest second moment so far.
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `name`, as in Keras.

    Raises:
        ValueError: The betas leave no short sum for the missed steps (see `idle_weights`).

    >>> Adam(learning_rate=0.001).amsgrad
    False
    """

    counts_steps = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_weights = idle_weights(self.beta_1, self.beta_2, self.amsgrad)
        self._history: Any = None
        self._attached: list = []  # by the index of the variable; None for those that are no tables

    def build(self, variables: Any) -> None:
        """Creates the moments and attaches to the tables."""
        if self.is_built:
            return
        super().build(variables)
        if BACKEND == "tensorflow" and any(is_row_table(variable) for variable in variables):
            self._history = catch_up.StepHistory(self._add_step_sums(), self._idle_weights)
            self._attached = [
                stored and catch_up.RowCatchUp(self, variable, stored, self._history)
                for variable, stored in zip(variables, self._table_moments, strict=True)
            ]
            self._attach()

    def flush(self) -> None:
        """Applies to every row of every table the steps that it missed. Visits whole tables."""
        for attached in filter(None, self._attached):
            attached.flush()

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Flushes, and lets the tables be read as plain variables inside the block.

        For exporting a model in training: what is traced inside holds no optimiser state. Do not
        train inside.
        """
        self.flush()
        for attached in filter(None, self._attached):
            attached.table.row_catch_up = None
        try:
            yield
        finally:
            self._attach()

    def finalize_variable_values(self, var_list: Any) -> None:
        """Flushes; Keras calls this at the end of `fit`."""
        self.flush()
        super().finalize_variable_values(var_list)

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Applies one step; Keras 3 calls this."""
        return self._recorded(super().apply, grads, trainable_variables)

    def apply_gradients(self, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies one step to pairs of gradient and variable."""
        apply = super().apply_gradients
        if not LEGACY:
            return apply(grads_and_vars)  # calls `apply`
        return self._recorded(apply, list(grads_and_vars), *args, **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        """Updates one variable; Keras calls this."""
        sparse = BACKEND == "tensorflow" and isinstance(gradient, tf.IndexedSlices)
        attached = self._attached_to(variable)
        if attached is None:
            self.dense_step(_dense(gradient) if sparse else gradient, variable, learning_rate)
            return
        if sparse:
            self._refuse_unread(attached)
            gradient = catch_up.rows_with_sweep(gradient, self.iterations, tuple(variable.shape))
            super().update_step(gradient, variable, learning_rate)
        else:
            rate = tf.cast(self._rate(learning_rate), variable.dtype)
            self.update_rows(variable, tf.range(variable.shape[0]), gradient, rate)

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Brings rows of a table up to date, then makes one step on them."""
        step = self.iterations + 1
        weights, moments = self._rows_after(self.iterations, variable, rows)
        size = self.step_size(learning_rate, step)
        weights, moments = self.step_rows(weights, moments, gradient, size)
        self._write_rows_after(step, variable, rows, weights, moments)

    def flush_table(self, table: Any) -> None:
        """Applies to every row of one table the steps that it missed."""
        strategy = self._distribution_strategy
        with strategy.scope():
            variable = table if LEGACY else table.value
            strategy.extended.update(variable, self._flush_variable, group=False)

    def _flush_variable(self, variable: Any) -> None:
        now = catch_up.step_number(self.iterations, variable.dtype)
        total = variable.shape[0]
        for start in range(0, total, catch_up.FLUSH_ROWS):
            rows = tf.range(start, min(start + catch_up.FLUSH_ROWS, total))
            last_step = self.moments_of(variable).read(rows).last_step
            rows = tf.boolean_mask(rows, last_step[:, 0] != now)
            brought = self._rows_after(self.iterations, variable, rows)
            self._write_rows_after(self.iterations, variable, rows, *brought)

    def _rows_after(self, step: Any, variable: Any, rows: Any) -> tuple[Any, Moments]:
        """Rows and moments as the dense rule has them after `step`, the last step made."""
        stored = self.moments_of(variable).read(rows)
        idle = catch_up.steps_between(stored.last_step, step)
        weights = tf.gather(variable, rows) - self._history.movement(stored, self.epsilon)
        first = stored.first * catch_up.decay(self.beta_1, idle, weights.dtype)
        second = stored.second * catch_up.decay(self.beta_2, idle, weights.dtype)
        return self.constrained(variable, weights), Moments(first, second, stored.largest_second)

    def _write_rows_after(
        self, step: Any, variable: Any, rows: Any, weights: Any, moments: Moments
    ) -> None:
        last_step = catch_up.step_number(step, weights.dtype)
        moments.last_step = tf.fill([tf.shape(rows)[0], 1], last_step)
        self.write_weights(variable, rows, weights)
        self.moments_of(variable).write(rows, moments)

    def _recorded(self, apply: Callable, grads: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies a step, then enters its size in the history."""
        if BACKEND != "tensorflow" or len(grads) == 0:
            return apply(grads, *args, **kwargs)
        rate, step = tf.identity(self._rate_of_step()), tf.identity(self.iterations + 1)
        result = apply(grads, *args, **kwargs)
        if self._history is not None:
            dtype = next(filter(None, self._attached)).table.dtype
            self._history.advance(step, self.step_size(tf.cast(rate, dtype), step))
        return result

    def _rate_of_step(self) -> Any:
        """The learning rate of the step about to be made."""
        if LEGACY and callable(self._learning_rate):
            return self._learning_rate(self.iterations)
        return self.learning_rate

    def _attached_to(self, variable: Any) -> Any:
        return self._attached[self.variable_index(variable)] if self._attached else None

    def _attach(self) -> None:
        for attached in filter(None, self._attached):
            attached.table.row_catch_up = attached

    def _refuse_unread(self, attached: Any) -> None:
        if attached.was_read or (tf.executing_eagerly() and self.iterations == 0):
            return
        raise RuntimeError(
            f"{type(self).__name__} was built after the rows of {attached.table.name} were read, "
            "so they were read without the steps that idle rows have missed. Call "
            "optimizer.build(model.trainable_variables) before the first training step."
        )

    def _add_step_sums(self) -> Any:
        shape = (catch_up.HISTORY_STEPS, self._idle_weights.shape[1])
        sums = self.add_variable(
            shape=shape, dtype="float64", initializer="zeros", name="step_sums"
        )
        return sums if LEGACY else sums.value


@register
class AMSGrad(Adam):
    """AMSGrad (Reddi et al. 2018, algorithm 2): `Adam(amsgrad=True)` under its own name.

    Args:
        learning_rate: Float, or a `LearningRateSchedule`.
        **kwargs: As for `Adam`.

    >>> AMSGrad(learning_rate=0.001).amsgrad
    True
    """

    def __init__(self, learning_rate: Any = 0.001, **kwargs: Any) -> None:
        if not kwargs.pop("amsgrad", True):
            raise ValueError("AMSGrad is Adam with amsgrad=True; use Adam for amsgrad=False.")
        super().__init__(learning_rate=learning_rate, amsgrad=True, **kwargs)


def _dense(gradient: Any) -> Any:
    """A sparse gradient as a dense one, duplicates added."""
    return add_slices(gradient.values, gradient.indices, gradient.dense_shape[0])
