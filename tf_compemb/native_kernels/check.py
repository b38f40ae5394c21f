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
    full, row_wise = tf.square(gradient), tf.reduce_mean(gradient**2, axis=1, keepdims=True)
    read = kernels.tf_compemb_read_rows(tf.Variable(table).handle, ids, rows=_ROWS, width=_WIDTH)
    found = {"lookup": _difference(read, tf.gather(table, ids))}
    found["products"] = _difference_of_products(kernels, table, ids, values)
    found["sgd"] = _difference(_step_sgd(kernels, table, ids, values), table - _RATE * gradient)
    for rule, squares in (("adagrad", full), ("rowwise_adagrad", row_wise)):
        total = 1.0 + squares
        moved = table - _RATE * gradient * tf.math.rsqrt(total + _EPSILON)
        weights, accumulator = _step_adagrad(kernels, table, ids, values, tf.ones_like(squares))
        found[rule] = max(_difference(weights, moved), _difference(accumulator / total, 1.0))
    return found


def _difference_of_products(kernels: Any, table: Any, ids: Any, values: Any) -> float:
    """That of `quotient * remainder` vectors and of the tables' gradients."""
    divisor, size = 7, _ROWS
    tables = [tf.Variable(table), tf.Variable(table[:divisor])]
    entries = {"rows": [_ROWS, divisor], "width": _WIDTH, "num_fields": 1, "fields": [0, 0]}
    entries["tables_of_entries"] = [0, 1]
    handles = [variable.handle for variable in tables]
    vectors, numbers = kernels.tf_compemb_read_row_products(
        handles,
        ids[:, None],
        **entries,
        sizes=[size],
        divisors=[divisor, 1],
        moduli=[size, divisor],
        offsets=[3, 0],
    )
    gradients = kernels.tf_compemb_row_product_gradients(
        handles, numbers, values[:, None], **entries, dense=[False, True]
    )
    quotients, remainders = ids // divisor + 3, ids % divisor
    x, y = tf.gather(table, quotients), tf.gather(table, remainders)
    sums = tf.math.unsorted_segment_sum(values * x, remainders, divisor)
    pairs = [(vectors[:, 0], x * y), (gradients[0], values * y)]
    # A sum of some 3000 numbers around one.
    scale = tf.sqrt(_SLICES / divisor)
    return max(
        *(_difference(got, expected) for got, expected in pairs),
        _difference(gradients[1] / scale, sums / scale),
    )


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


def _step_sgd(kernels: Any, table: Any, ids: Any, values: Any) -> Any:
    variable = tf.Variable(table)
    kernels.tf_compemb_sgd_rows(variable.handle, ids, values, _RATE)
    return variable.value()


def _step_adagrad(kernels: Any, table: Any, ids: Any, values: Any, start: Any) -> tuple[Any, Any]:
    variable, accumulator = tf.Variable(table), tf.Variable(start)
    kernels.tf_compemb_adagrad_rows(
        variable.handle, accumulator.handle, ids, values, _RATE, epsilon=_EPSILON
    )
    return variable.value(), accumulator.value()


def _difference(got: Any, expected: Any) -> float:
    return float(tf.reduce_max(tf.abs(got - expected)))
