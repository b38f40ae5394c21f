"""Compares the compiled kernels with TensorFlow's own ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

_ROWS, _WIDTH, _SLICES = 1000, 24, 20_000
_RATE, _EPSILON = 0.05, 1e-7
# Sums of some twenty float32 numbers in two orders, relative to numbers around one.
TOLERANCE = 1e-5


class WrongResultError(Exception):
    """The kernels compute something else; the message says what to do."""


def largest_differences(kernels: Any) -> dict[str, float]:
    """The largest difference of a lookup, of products, and of a step of each rule.

    Args:
        kernels: Module of the library's ops.
    """
    random = tf.random.Generator.from_seed(1)
    table = random.normal((_ROWS, _WIDTH))
    ids = random.uniform((_SLICES,), maxval=_ROWS, dtype=tf.int64)
    values = random.normal((_SLICES, _WIDTH))
    gradient = tf.math.unsorted_segment_sum(values, ids, _ROWS)
    read = kernels.tf_compemb_read_rows(tf.Variable(table).handle, ids, rows=_ROWS, width=_WIDTH)
    product = _Product(kernels, table, ids, values)
    found = {"lookup": _difference(read, tf.gather(table, ids)), "products": product.difference()}
    for rule in ("sgd", "adagrad", "rowwise_adagrad"):
        step = _Step(kernels, rule, [table])
        step.of_rows(ids, values)
        found[rule] = max(step.difference([gradient]), product.difference_of_step(rule))
    return found


class _Product:
    """Vectors that are `quotient * remainder`, and the gradients of both tables."""

    def __init__(self, kernels: Any, table: Any, ids: Any, values: Any) -> None:
        divisor = 7
        quotients, remainders = ids // divisor + 3, ids % divisor
        self.kernels, self.ids, self.upstream = kernels, ids[:, None], values[:, None]
        self.tables = [table, table[:divisor]]
        x, y = tf.gather(table, quotients), tf.gather(table, remainders)
        self.vectors = (x * y)[:, None]
        self.slices = values * y
        # Of sums of some 3000 numbers around one, so that their rounding is as that of one number.
        self.scale = tf.sqrt(_SLICES / divisor)
        self.sums = [
            tf.math.unsorted_segment_sum(self.slices, quotients, _ROWS) / self.scale,
            tf.math.unsorted_segment_sum(values * x, remainders, divisor) / self.scale,
        ]
        self.entries = {"rows": [_ROWS, divisor], "width": _WIDTH, "num_fields": 1}
        self.entries |= {"fields": [0, 0], "tables_of_entries": [0, 1]}
        self.digits = {"sizes": [_ROWS], "divisors": [divisor, 1], "moduli": [_ROWS, divisor]}
        self.digits |= {"offsets": [3, 0]}

    def difference(self) -> float:
        """That of the vectors and of the gradients."""
        handles = [variable.handle for variable in map(tf.Variable, self.tables)]
        vectors, numbers = self._read(handles)
        slices, sums = self.kernels.tf_compemb_row_product_gradients(
            handles, numbers, self.upstream, **self.entries, dense=[False, True]
        )
        pairs = [(vectors, self.vectors), (slices, self.slices), (sums / self.scale, self.sums[1])]
        return max(_difference(got, expected) for got, expected in pairs)

    def difference_of_step(self, rule: str) -> float:
        """That of the tables and accumulators after a step."""
        step = _Step(self.kernels, rule, self.tables)
        _, numbers = self._read(step.handles)
        step.of_products(numbers, self.upstream / self.scale, {**self.entries, **self.digits})
        return step.difference(self.sums)

    def _read(self, handles: Any) -> tuple[Any, Any]:
        return self.kernels.tf_compemb_read_row_products(
            handles, self.ids, **self.entries, **self.digits
        )


class _Step:
    """A step of a rule on some tables, whose accumulators start at one."""

    def __init__(self, kernels: Any, rule: str, tables: list[Any]) -> None:
        self.kernels, self.tables, self.is_sgd = kernels, tables, rule == "sgd"
        self.is_row_wise = rule == "rowwise_adagrad"
        self.variables = [tf.Variable(table) for table in tables]
        states = [table[:, :1] if self.is_row_wise else table for table in tables]
        self.accumulators = [tf.Variable(tf.ones_like(state)) for state in states]
        self.handles = [variable.handle for variable in self.variables]
        self.of_accumulators = [variable.handle for variable in self.accumulators]

    def of_rows(self, ids: Any, values: Any) -> None:
        """Applies slices to the only table."""
        (table,), (state,) = self.handles, self.of_accumulators
        if self.is_sgd:
            self.kernels.tf_compemb_sgd_rows(table, ids, values, _RATE)
        else:
            self.kernels.tf_compemb_adagrad_rows(table, state, ids, values, _RATE, epsilon=_EPSILON)

    def of_products(self, numbers: Any, upstream: Any, entries: dict[str, Any]) -> None:
        """Applies the gradient of vectors that are products."""
        step = (numbers, upstream, _RATE)
        if self.is_sgd:
            self.kernels.tf_compemb_sgd_row_products(self.handles, *step, **entries)
        else:
            self.kernels.tf_compemb_adagrad_row_products(
                self.handles, self.of_accumulators, *step, **entries, epsilon=_EPSILON
            )

    def difference(self, gradients: list[Any]) -> float:
        """That of tables, and of accumulators relative to themselves, from the rule's formula."""
        found = []
        states = zip(self.variables, self.accumulators, self.tables, gradients, strict=True)
        for variable, accumulator, table, gradient in states:
            moved = _RATE * gradient
            if not self.is_sgd:
                squares = tf.square(gradient)
                if self.is_row_wise:
                    squares = tf.reduce_mean(squares, axis=1, keepdims=True)
                moved *= tf.math.rsqrt(1.0 + squares + _EPSILON)
                found.append(_difference(accumulator / (1.0 + squares), 1.0))
            found.append(_difference(variable, table - moved))
        return max(found)


def _difference(got: Any, expected: Any) -> float:
    return float(tf.reduce_max(tf.abs(got - expected)))


def refuse_wrong(differences: dict[str, float], path: Path) -> None:
    """Deletes a library whose differences are too large.

    Raises:
        WrongResultError: They are.
    """
    wrong = [rule for rule, value in differences.items() if not value <= TOLERANCE]
    if wrong:
        path.unlink()
        raise WrongResultError(
            f"{', '.join(wrong)} differs by more than {TOLERANCE:g}, so the kernels were deleted. "
            "Another compiler (CXX in the environment) may be right."
        )
