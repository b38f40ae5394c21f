"""Checks in the served graph: a wrong value is an error of the request, which says where it is."""

from __future__ import annotations

import tensorflow as tf

_LONGEST_SHOWN = 40


def check_none(wrong: tf.Tensor, values: tf.Tensor, rule: str) -> tf.Tensor:
    """A check to depend on (`tf.control_dependencies`), of stock operations.

    TensorFlow Serving answers INVALID_ARGUMENT, over REST 400. What is said is only put together
    where there is something to say.

    Args:
        wrong: Bool (B, n), where a value is wrong.
        values: Of the same shape, numbers or strings.
        rule: What they must be, such as "dense must be finite numbers".
    """

    def refuse() -> tf.Tensor:
        place = tf.where(wrong)[0]
        row, column = tf.unstack(tf.strings.as_string(place))
        said = [rule, "; row ", row, ", column ", column, " (from 0) is ", _shown(values, place)]
        with tf.control_dependencies([tf.debugging.Assert(False, [tf.strings.join(said)])]):
            return tf.constant(False)

    return tf.cond(tf.reduce_any(wrong), refuse, lambda: tf.constant(True))


def _shown(values: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    value = tf.gather_nd(values, place)
    if value.dtype != tf.string:
        return tf.strings.as_string(value)
    # Any bytes may have been sent, and what is said must be text. `Assert` escapes line ends.
    start = tf.strings.substr(value, 0, _LONGEST_SHOWN)
    start = tf.strings.unicode_transcode(start, "UTF-8", "UTF-8")
    more = tf.where(tf.strings.length(value) > _LONGEST_SHOWN, "...", "")
    return tf.strings.join(["`", start, more, "`"])
