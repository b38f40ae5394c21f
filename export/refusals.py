"""Checks in the served graph: a wrong value is an error of the request, which says where it is."""

from __future__ import annotations

import tensorflow as tf

_LONGEST_SHOWN = 40


def check_all(valid: tf.Tensor, values: tf.Tensor, rule: str) -> tf.Tensor:
    """A check to depend on (`tf.control_dependencies`), of stock operations.

    TensorFlow Serving answers INVALID_ARGUMENT, over REST 400. What is said is only put together
    where there is something to say.

    Args:
        valid: Bool (B, n), whether a value is right.
        values: Of the same shape, numbers or strings.
        rule: What they must be, such as "dense must be finite numbers".
    """

    def refuse() -> tf.Tensor:
        # Not where `~valid` is: of "not a <= b" TensorFlow's optimiser makes "a > b", and both are
        # false of NaN.
        first = tf.argmin(tf.cast(tf.reshape(valid, [-1]), tf.int32))
        row, column = tf.unstack(tf.unravel_index(first, tf.shape(valid, tf.int64)))
        value = _shown(values[row, column])
        row, column = tf.strings.as_string(row), tf.strings.as_string(column)
        said = [rule, "; row ", row, ", column ", column, " (from 0) is ", value]
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(said)])]):
            return tf.constant(False)

    return tf.cond(tf.reduce_all(valid), lambda: tf.constant(True), refuse)


def _shown(value: tf.Tensor) -> tf.Tensor:
    if value.dtype != tf.string:
        return tf.strings.as_string(value, shortest=True)
    # Any bytes may have been sent, and what is said must be text. `Assert` escapes line ends.
    start = tf.strings.substr(value, 0, _LONGEST_SHOWN)
    start = tf.strings.unicode_transcode(start, "UTF-8", "UTF-8")
    more = tf.where(tf.strings.length(value) > _LONGEST_SHOWN, "...", "")
    return tf.strings.join(["`", start, more, "`"])
