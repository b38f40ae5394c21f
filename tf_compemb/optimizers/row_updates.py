"""What the row optimisers share: merged duplicates, and an update that touches a batch's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_compemb._keras import BACKEND, LEGACY, add_slices
from tf_compemb.native_kernels import kernels_for, product_gradients
from tf_compemb.storage.row_constraint import taken_constraint
from tf_compemb.storage.table_rows import is_table, table_of

if BACKEND == "tensorflow":
    import tensorflow as tf

_WHOLE_TABLES = "it would visit every row of every table at every step"
# What Keras offers and a row optimiser does not: why, and what to do.
REFUSED_OPTIONS = {
    "weight_decay": f"{_WHOLE_TABLES}. Give dense layers a kernel_regularizer instead",
    "use_ema": f"{_WHOLE_TABLES}. Average the models of several checkpoints instead",
    "gradient_accumulation_steps": f"{_WHOLE_TABLES}. Use a larger batch instead",
    "adaptive_epsilon": "idle rows would need it at every missed step. Use a constant epsilon",
    "loss_scale_factor": "Keras cannot divide sparse gradients by it. Use LossScaleOptimizer",
}


def merge_duplicates(gradient: Any) -> tuple[Any, Any]:
    """Adds up the slices of a `tf.IndexedSlices` that belong to the same row.

    Returns:
        Row numbers, each once, shape (n,), and the sums, shape (n, width).
    """
    rows, positions = tf.unique(gradient.indices)
    return rows, add_slices(gradient.values, positions, tf.shape(rows)[0])


def write_rows(variable: Any, rows: Any, values: Any) -> None:
    """Overwrites rows of a variable. `rows` are distinct, so the order of writing is free."""
    variable.scatter_update(tf.IndexedSlices(values, rows))


class RowUpdates:
    """Mixin over a stock optimiser: sparse gradients update rows, dense ones take the stock rule.

    A subclass defines `update_rows(variable, rows, gradient, learning_rate)`. It is called under
    TensorFlow for a `tf.IndexedSlices` gradient, with every row once, and writes by
    `write_weights`, so that constraints of rows hold. The cost of a step then grows with the batch
    and not with the table. Small tables have dense gradients; a rule that moves rows whose gradient
    is zero defines `dense_step` for them too.

    Raises:
        ValueError: An option in `REFUSED_OPTIONS` was given, most of which would visit whole
            tables at every step; or, on building, a table has a constraint which would too.
    """

    # Whether `tf_compemb.native_kernels` has the rule.
    has_native_update = False
    _row_constraints: Sequence[Any] = ()  # By the index of the variable.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if LEGACY:
            kwargs["jit_compile"] = False  # XLA has no fast `unique`
        super().__init__(*args, **kwargs)
        for option, reason in REFUSED_OPTIONS.items():
            value = getattr(self, option, None)
            if value:
                raise ValueError(
                    f"{type(self).__name__} does not take {option}={value!r}: {reason}."
                )

    @property
    def is_built(self) -> bool:
        """Whether the optimiser's variables exist."""
        return bool(getattr(self, "_built", False) if LEGACY else self.built)  # type: ignore[attr-defined]

    def build(self, variables: Any) -> None:
        """Creates the optimiser's variables (once; later calls do nothing)."""
        if self.is_built:
            return
        self.prepare_tables(variables)
        super().build(variables)  # type: ignore[misc]

    def prepare_tables(self, variables: Any) -> None:
        """Takes constraints of single rows over from their last optimiser.

        Raises:
            ValueError: A table has a constraint of another kind.
        """
        self._tables = {i for i, variable in enumerate(variables) if is_table(variable)}
        self._row_constraints = [
            taken_constraint(table_of(variable)) if is_table(variable) else None
            for variable in variables
        ]
        for variable in filter(is_table, variables):
            table_of(variable).forget_former_optimizers()

    def state_name(self, variable: Any, name: str) -> str:
        """Names a variable's state; HDF5 files need a name for each, as Keras' slots have."""
        path = str(getattr(variable, "path", None) or variable.name)
        return f"{path.split(':')[0].replace('/', '_')}_{name}"

    def variable_index(self, variable: Any) -> int:
        """Position of a variable among those the optimiser was built with."""
        if LEGACY:
            return self._index_dict[self._var_key(variable)]  # type: ignore[attr-defined]
        return self._get_variable_index(variable)  # type: ignore[attr-defined]

    def is_table(self, variable: Any) -> bool:
        """Whether a variable that Keras hands to `update_step` is a row table."""
        return self.variable_index(variable) in self._tables

    def slot(self, slots: Any, variable: Any) -> Any:
        """The `tf.Variable` of a variable's state, from one of the optimiser's lists of slots."""
        slot = slots[self.variable_index(variable)]
        return slot if LEGACY else slot.value

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any = None) -> None:
        """Updates one variable; Keras calls this."""
        if BACKEND == "tensorflow" and isinstance(gradient, tf.IndexedSlices):
            rate = tf.cast(self._rate(learning_rate), variable.dtype)
            by_kernels = self.has_native_update and self.constraint_of(variable) is None
            kernels = kernels_for(variable, gradient) if by_kernels else None
            if kernels is not None:
                self.update_natively(kernels, variable, gradient, rate)
                return
            rows, sums = merge_duplicates(gradient)
            self.update_rows(variable, rows, tf.cast(sums, variable.dtype), rate)
        else:
            self.dense_step(gradient, variable, learning_rate)
            constraint = self.constraint_of(variable)
            if constraint is not None:
                variable.assign(constraint(variable))

    def _internal_apply_gradients(self, grads_and_vars: Any) -> Any:
        """Updates all variables; tf_keras calls this."""
        left = self._update_products(grads_and_vars, None)
        return super()._internal_apply_gradients(left)  # type: ignore[misc]

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Updates all variables; Keras 3 calls this."""
        pairs = zip(grads, trainable_variables, strict=True)
        left = self._update_products(list(pairs), learning_rate)
        grads, variables = [g for g, _ in left], [v for _, v in left]
        super()._backend_update_step(grads, variables, learning_rate)  # type: ignore[misc]

    def _update_products(self, grads_and_vars: Any, learning_rate: Any) -> list[Any]:
        """Updates tables of products at once where the kernels do; returns the other pairs."""
        if BACKEND != "tensorflow" or not self.has_native_update:
            return grads_and_vars
        pairs = [(g, v if LEGACY else getattr(v, "value", v)) for g, v in grads_and_vars]
        free = [(g, v) for g, v in pairs if self.constraint_of(v) is None]
        updated: set[Any] = set()
        for product in product_gradients(free):
            rate = tf.cast(self._rate(learning_rate), product.upstream.dtype)
            self.update_product_natively(product, rate)
            updated.update(variable.ref() for variable in product.variables)
        return [
            pair
            for pair, (_, v) in zip(grads_and_vars, pairs, strict=True)
            if v.ref() not in updated
        ]

    def constraint_of(self, variable: Any) -> Any:
        """The constraint under which rows of a variable are written, or None."""
        constraints = self._row_constraints
        return constraints[self.variable_index(variable)] if constraints else None

    def constrained(self, variable: Any, values: Any) -> Any:
        """Rows of a variable as its constraint leaves them."""
        constraint = self.constraint_of(variable)
        return values if constraint is None else constraint(values)

    def write_weights(self, variable: Any, rows: Any, values: Any) -> None:
        """Overwrites distinct rows of a variable, as its constraint leaves them."""
        write_rows(variable, rows, self.constrained(variable, values))

    def dense_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The stock rule."""
        rate = () if LEGACY else (learning_rate,)
        super().update_step(gradient, variable, *rate)  # type: ignore[misc]

    def update_rows(self, variable: Any, rows: Any, gradient: Any, learning_rate: Any) -> None:
        """Updates distinct rows, shape (n,), by their gradients, shape (n, width)."""
        raise NotImplementedError

    def update_natively(
        self, kernels: Any, variable: Any, gradient: Any, learning_rate: Any
    ) -> None:
        """Updates the rows of a `tf.IndexedSlices` by the compiled kernels, duplicates and all.

        For those that have it (`has_native_update`); the same numbers as `update_rows`.
        """
        raise NotImplementedError

    def update_product_natively(self, product: Any, learning_rate: Any) -> None:
        """Updates the tables of a `ProductGradient` by the compiled kernels, in one op.

        For those that have it (`has_native_update`); the same numbers as `update_rows`.
        """
        raise NotImplementedError

    def _rate(self, learning_rate: Any) -> Any:
        return self.learning_rate if learning_rate is None else learning_rate  # type: ignore[attr-defined]

    def _deduplicate_sparse_grad(self, grads: Any) -> Any:
        """Overrides tf_keras: `update_step` merges duplicates, once, under both Kerases."""
        return grads

    def _clip_gradients(self, grads: Any) -> Any:
        """Clips the merged gradients, by rows: the norm of a sum is not that of its parts.

        Keras 3 would make sparse gradients dense here, and tf_keras clip before it merges.
        """
        if BACKEND != "tensorflow" or not self._clips():
            return super()._clip_gradients(grads)  # type: ignore[misc]
        merged = [_merged(gradient) for gradient in grads]
        if self.global_clipnorm:  # type: ignore[attr-defined]
            return tf.clip_by_global_norm(merged, self.global_clipnorm)[0]  # type: ignore[attr-defined]
        return [None if gradient is None else self._clipped(gradient) for gradient in merged]

    def _clips(self) -> bool:
        return bool(self.clipnorm or self.global_clipnorm or self.clipvalue)  # type: ignore[attr-defined]

    def _clipped(self, gradient: Any) -> Any:
        if self.clipnorm:  # type: ignore[attr-defined]
            return tf.clip_by_norm(gradient, self.clipnorm)  # type: ignore[attr-defined]
        return tf.clip_by_value(gradient, -self.clipvalue, self.clipvalue)  # type: ignore[attr-defined]


def _merged(gradient: Any) -> Any:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, sums = merge_duplicates(gradient)
    return tf.IndexedSlices(sums, rows, gradient.dense_shape)
