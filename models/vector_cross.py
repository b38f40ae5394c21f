"""The cross layer of the first DCN, with a vector of weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_compemb._keras import keras, register


@register
class VectorCross(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Cross layer with vector weights: `y = x0 * (x . w) + b + x`.

    `x0` (B, n) is the network's input, `x` (B, n) the previous cross layer's output; `w` and `b`
    have n numbers each, so a layer has 2 n parameters. The cross layer of tensorflow-recommenders
    is the later one of DCN-V2, whose weights are an n x n matrix.

    Reference: Wang et al. 2017, "Deep & Cross Network for Ad Click Predictions", eq. (3),
    https://arxiv.org/abs/1708.05123.

    >>> layer = VectorCross(kernel_initializer="ones")
    >>> layer(tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])).numpy().tolist()
    [[10.0, 18.0]]
    """

    def __init__(self, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        """Adds the vectors w and b."""
        width = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel", shape=(width, 1), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        super().build(input_shape)

    def call(self, x0: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Crosses the network's input with the previous layer's output, both (B, n)."""
        return x0 * tf.matmul(x, self.kernel) + self.bias + x

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
