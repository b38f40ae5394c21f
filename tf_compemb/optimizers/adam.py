"""Adam and AMSGrad, equal to the dense rule, at a cost that grows with the batch only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from tf_compemb._keras import BACKEND, add_slices, register
from tf_compemb.optimizers.idle_series import idle_weights
from tf_compemb.optimizers.row_adam import RowAdam
from tf_compemb.storage.table_rows import expect_deferred_updates, table_of

if BACKEND == "tensorflow":
    import tensorflow as tf

    from tf_compemb.optimizers.deferred_update import AdamRule, DeferredUpdate


@register
class Adam(RowAdam):
    """Adam (Kingma & Ba 2014), or AMSGrad (Reddi et al. 2018), exact on tables read by rows.

    Rows that a batch does not read still move under the dense rule. Here they are stored as last
    updated, and the steps they missed are added in closed form whenever they are read and before
    they are next updated, so that training, evaluation, prediction and all that saves or copies
    the table see the dense rule's rows. A table costs 4 bytes a row beyond the moments, and its
    history of steps at most 3 MiB (Adam with its usual betas) or 0.5 MiB (AMSGrad).

    Rows under a constraint keep it when they are read, updated or saved, but the movement of the
    steps that they missed is added up without it.

    Variables that are no tables take the stock rule, sparse gradients made dense. On the JAX and
    torch backends this is the stock optimiser: gradients are dense there.

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        idle_weights(self.beta_1, self.beta_2, self.amsgrad)  # Refuses betas.
        if BACKEND == "tensorflow":
            expect_deferred_updates(self)

    @property
    def rule(self) -> AdamRule:
        """What the movement of idle rows depends on."""
        return AdamRule(self.beta_1, self.beta_2, self.epsilon, self.amsgrad)

    def build(self, variables: Any) -> None:
        """Creates the moments and begins to defer updates of the tables."""
        if self.is_built:
            return
        super().build(variables)
        for deferred_update in self._deferred_updates():
            deferred_update.attach(self)

    def deferred_update(self, table: Any) -> DeferredUpdate:
        """What a table needs before this optimiser is built; `build` takes it over."""

        def add(shape: tuple[int, ...], dtype: str, initializer: Any, name: str) -> Any:
            zeros = tf.zeros_initializer() if initializer == "zeros" else initializer
            name = self.state_name(table.variable, name)
            return tf.Variable(lambda: zeros(shape, dtype), dtype=dtype, trainable=False, name=name)

        return DeferredUpdate(table, self.rule, add)

    def add_table_moments(self, variable: Any) -> DeferredUpdate:
        """Makes what updates of a table need, or takes over what was made before."""
        table = table_of(variable)
        reserved = table.reserved_for(self.rule)
        creators = [] if reserved is None else [_giving(v) for v in reserved.variables]

        def add(shape: tuple[int, ...], dtype: str, initializer: Any, name: str) -> Any:
            with tf.variable_creator_scope(creators.pop(0)) if creators else nullcontext():
                name = self.state_name(variable, name)
                return self.add_raw_variable(shape, dtype, initializer, name)

        deferred_update = DeferredUpdate(table, self.rule, add)
        return deferred_update if reserved is None else reserved

    def materialize_rows(self) -> None:
        """Applies to every row of every table the steps that it missed. Visits whole tables."""
        for deferred_update in self._deferred_updates():
            deferred_update.materialize()

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Brings tables up to date and lets them be read as plain variables inside the block.

        For exporting a model in training: what is traced inside holds no optimiser state. Do not
        train inside.
        """
        found = self._deferred_updates()
        for deferred_update in found:
            deferred_update.detach()
        try:
            yield
        finally:
            for deferred_update in found:
                deferred_update.attach(self)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Brings tables up to date; Keras calls this at the end of `fit`."""
        self.materialize_rows()
        super().finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Writes the optimiser's variables into a file, as of tables that are up to date."""
        self.materialize_rows()
        super().save_own_variables(store)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        """Updates one variable; Keras calls this."""
        sparse = BACKEND == "tensorflow" and isinstance(gradient, tf.IndexedSlices)
        deferred_update = self._deferred_update_of(variable)
        if deferred_update is None:
            self.dense_step(_dense(gradient) if sparse else gradient, variable, learning_rate)
        elif sparse:
            super().update_step(deferred_update.rows_of_step(gradient), variable, learning_rate)
        else:
            rate = tf.cast(self._rate(learning_rate), variable.dtype)
            self.update_rows(variable, tf.range(variable.shape[0]), gradient, rate)

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Brings rows of a table up to date, then makes one step on them."""
        size = self.step_size(learning_rate, self.iterations + 1)

        def change(weights: Any, moments: Any) -> Any:
            return self.step_rows(weights, moments, gradient, size)

        self._deferred_update_of(variable).step(variable, rows, change, size)

    def _deferred_update_of(self, variable: Any) -> Any:
        if BACKEND != "tensorflow":
            return None
        return self._table_moments[self.variable_index(variable)]

    def _deferred_updates(self) -> list[DeferredUpdate]:
        """Those of its tables."""
        return list(filter(None, getattr(self, "_table_moments", [])))


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


def _giving(variable: Any) -> Any:
    """For `tf.variable_creator_scope`: instead of a new variable, one that there is."""
    return lambda next_creator, **_: variable
